import { createConnection, type Socket } from "node:net";

/** Where bytes of all these sockets are read to: each is done with before the next is read. */
const received = Buffer.allocUnsafeSlow(16 * 1024);
/** The part of it that was given last: what guests say most often is of one length. */
let view = received;

function firstBytes(count: number): Buffer {
  if (view.length !== count) view = received.subarray(0, count);
  return view;
}

/**
 * Connects to a Unix socket of which there is one for each VM, and reads it without memory of its own.
 *
 * @param take gets the bytes that have come, which are of use until it returns; false pauses the reading until the socket's `resume`
 */
export function connectReading(path: string, take: (bytes: Buffer) => boolean): Socket {
  return createConnection({
    path,
    onread: { buffer: received, callback: (count) => take(firstBytes(count)) },
  });
}
