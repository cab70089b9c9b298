/** Text and bytes that are written together to a stream into the guest. */
import type { ClientHttp2Stream } from "node:http2";

interface Waiting {
  readonly chunk: Buffer | string;
  readonly encoding: BufferEncoding;
}

/**
 * Makes what has come together one buffer. Node (24.21) hands an HTTP/2 stream all of it at once, takes it for sent as soon as an empty last piece is, and
 * frees the memory of what was text, so that the other side reads whatever the heap holds by then. node:http writes such an empty piece after a request's
 * head and body, when both are there at once.
 */
export function writeBytesTogether(stream: ClientHttp2Stream): void {
  stream._writev = (waiting: readonly Waiting[], done) => {
    const parts = waiting.map(({ chunk, encoding }) =>
      typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk,
    );
    // "buffer" is what a stream says itself of a chunk that is one; the types don't know it.
    stream._write(Buffer.concat(parts), "buffer" as BufferEncoding, done);
  };
}
