import type { ClientHttp2Stream } from "node:http2";
import { VolantError } from "@volant/contract";

/**
 * Makes a stream end only where its peer has ended it. node:http2 lets a stream end in good order, too, that was reset with CANCEL or whose session was
 * destroyed: what was said so far would look like the whole. Such a stream fails instead, with `guest_unreachable`.
 */
export function endWhole(stream: ClientHttp2Stream): void {
  const destroy = stream._destroy.bind(stream);
  stream._destroy = (error, done) =>
    destroy(error, (cause) => {
      const isBroken = cause == null && !stream.readableEnded;
      done(isBroken ? new VolantError("guest_unreachable", "the stream into the guest broke off") : cause);
    });
}
