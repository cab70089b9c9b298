/** A VM's serial console over a WebSocket: for browsers, and for Node as well. */
import { VolantError } from "@volant/contract/errors";
import type { CallOptions } from "./call-options.ts";
import { CLOSE_DONE, CLOSE_LATER, openSocket, sendPieces } from "./open-socket.ts";
import type { Transport } from "./transport.ts";

/** What may wait to be sent: whoever types more waits. */
const HIGH_WATER_BYTES = 64 * 1024;
const DRAIN_POLL_MS = 20;

export interface VmConsole {
  /** What is printed from now on. It ends with the VM's run, and fails with `rate_limited` when it was read too slowly. */
  readonly readable: ReadableStream<Uint8Array>;
  /** What is typed. */
  readonly writable: WritableStream<Uint8Array>;
  /** Leaves the console; the VM goes on. */
  close(): void;
}

function printed(socket: WebSocket, name: string): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    start(controller) {
      socket.addEventListener("message", ({ data }) => {
        controller.enqueue(
          typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data as ArrayBuffer),
        );
      });
      socket.addEventListener("close", ({ code, reason }) => {
        if (code === CLOSE_DONE) controller.close();
        else if (code === CLOSE_LATER) controller.error(new VolantError("rate_limited", reason));
        else controller.error(new VolantError("guest_unreachable", `the console of VM "${name}" broke off`));
      });
    },
    cancel: () => socket.close(),
  });
}

/** @throws VolantError `not_found`, `wrong_state`, `guest_unreachable` */
export async function openConsole(transport: Transport, name: string, { signal }: CallOptions): Promise<VmConsole> {
  let readable = new ReadableStream<Uint8Array>();
  const socket = await openSocket(transport, {
    id: "vms.console.socket",
    name,
    what: "console",
    signal,
    // From the first moment: a message that comes before its reader is one that was printed.
    prepare: (fresh) => (readable = printed(fresh, name)),
  });
  const writable = new WritableStream<Uint8Array>({
    async write(bytes) {
      sendPieces(socket, bytes);
      // A WebSocket has no other word for "enough".
      while (socket.bufferedAmount > HIGH_WATER_BYTES && socket.readyState === WebSocket.OPEN) {
        await new Promise((resolve) => setTimeout(resolve, DRAIN_POLL_MS));
      }
    },
  });
  return { readable, writable, close: () => socket.close(CLOSE_DONE) };
}
