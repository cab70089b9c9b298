import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";

/** Whether a stream can be reset: a TCP connection, and no Unix socket, of which Node throws when it is asked to. */
function canReset(stream: Duplex): stream is Socket {
  return stream instanceof Socket && !(stream instanceof TLSSocket) && stream.localAddress !== undefined;
}

/** Ends a stream so that its peer sees that it broke: a TCP connection by a reset. A Unix socket has none: its peer sees an end. */
function breakOff(stream: Duplex, error: Error): void {
  if (canReset(stream)) stream.resetAndDestroy();
  else stream.destroy(error);
}

/**
 * Carries bytes both ways until each direction has ended by itself. What breaks on one side breaks the other, and as what it is: pipeline() would close
 * a client's connection in good order, and half an answer would look like a whole one. Slow readers slow the writer down.
 */
export function joinStreams(a: Duplex, b: Duplex): void {
  const breakBoth = (error: Error) => {
    breakOff(a, error);
    breakOff(b, error);
  };
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.on("error", breakBoth);
    from.once("close", () => {
      if (!from.readableEnded || !from.writableFinished) breakBoth(new Error("the connection broke off"));
    });
    from.pipe(to);
  }
}
