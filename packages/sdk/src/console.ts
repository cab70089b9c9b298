/** A VM's serial console over a WebSocket: for browsers, and for Node as well. */
import { VolantError } from "@volant/contract/errors";
import type { CallOptions } from "./call-options.ts";
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

/** RFC 6455 section 7.4.1: an end as it should be; and "try again later". */
const [CLOSE_DONE, CLOSE_LATER] = [1000, 1013];

function opened(socket: WebSocket, signal: AbortSignal | undefined): Promise<boolean> {
  return new Promise((resolve) => {
    const giveUp = () => socket.close();
    signal?.addEventListener("abort", giveUp, { once: true });
    socket.addEventListener("open", () => {
      signal?.removeEventListener("abort", giveUp);
      resolve(true);
    });
    socket.addEventListener("close", () => resolve(false));
    socket.addEventListener("error", () => {});
  });
}

/** A browser is not told why a WebSocket was refused: the VM itself may say. */
async function refusal(transport: Transport, name: string): Promise<VolantError> {
  const { body: vm } = await transport.call("vms.get", { params: { name } });
  if (vm.status === "stopped" || vm.status === "crashed") {
    return new VolantError("wrong_state", `VM "${name}" is ${vm.status}, and has no console`);
  }
  return new VolantError("guest_unreachable", `the console of VM "${name}" can't be opened: it is ${vm.status}`);
}

/** @throws VolantError `not_found`, `wrong_state`, `guest_unreachable` */
export async function openConsole(transport: Transport, name: string, { signal }: CallOptions): Promise<VmConsole> {
  signal?.throwIfAborted();
  const socket = transport.webSocket("vms.console.socket", { name });
  socket.binaryType = "arraybuffer";
  // From the first moment: a message that comes before its reader is one that was printed.
  const readable = new ReadableStream<Uint8Array>({
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
  if (!(await opened(socket, signal))) {
    await readable.cancel().catch(() => {});
    signal?.throwIfAborted();
    throw await refusal(transport, name);
  }
  signal?.addEventListener("abort", () => socket.close(CLOSE_DONE), { once: true });
  const writable = new WritableStream<Uint8Array>({
    async write(bytes) {
      socket.send(new Uint8Array(bytes));
      // A WebSocket has no other word for "enough".
      while (socket.bufferedAmount > HIGH_WATER_BYTES && socket.readyState === WebSocket.OPEN) {
        await new Promise((resolve) => setTimeout(resolve, DRAIN_POLL_MS));
      }
    },
  });
  return { readable, writable, close: () => socket.close(CLOSE_DONE) };
}
