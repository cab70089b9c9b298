import { Transform, type Readable } from "node:stream";
import { VolantError } from "@volant/contract";
import type { ImageUseCases } from "../engine/use-cases.ts";
import { DONE, type Handlers } from "./handler.ts";

/** The same bytes, failing with `too_large` as soon as there are more than `maxBytes` of them. */
export function limited(content: Readable, maxBytes: number): Readable {
  let seen = 0;
  const limit = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      seen += chunk.length;
      if (seen <= maxBytes) return done(null, chunk);
      done(new VolantError("too_large", `the file is larger than the ${maxBytes} bytes that are allowed`));
    },
  });
  // Not pipeline(): the request has to outlive a refused file, so that the answer can still be sent over it.
  content.once("error", (error) => limit.destroy(error));
  content.once("aborted", () =>
    limit.destroy(new VolantError("invalid", "the client hung up before it had sent the whole file")),
  );
  return content.pipe(limit);
}

/** Files by checksum. */
export function imageHandlers(images: ImageUseCases, maxBytes: number): Handlers<"images.has" | "images.put"> {
  return {
    "images.has": async ({ params }) => {
      if (await images.has(params.checksum)) return DONE;
      throw new VolantError("not_found", `no file with checksum ${params.checksum} is here`);
    },
    "images.put": async ({ params, upload }) => {
      const content = limited(upload, maxBytes);
      try {
        await images.put(params.checksum, content);
      } finally {
        content.destroy();
        // What the client still sends is read and dropped, or it would wait for the answer while we wait for it.
        upload.unpipe();
        upload.resume();
      }
      return DONE;
    },
  };
}
