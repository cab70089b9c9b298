/** Opening a WebSocket into a guest, in browsers and in Node. */
import type { SocketId } from "@volant/contract/endpoints";
import { VolantError } from "@volant/contract/errors";
import type { AnyCall, Transport } from "./transport.ts";

/** RFC 6455 section 7.4.1, and IANA's registry: an end as it should be; and "try again later". */
export const [CLOSE_DONE, CLOSE_LATER] = [1000, 1013];

/** What a message holds: well below what volantd takes. */
const PIECE_BYTES = 32 * 1024;

export interface SocketCall {
  readonly id: SocketId;
  /** Name of the VM. */
  readonly name: string;
  /** What is opened, for errors: `console`. */
  readonly what: string;
  readonly query?: AnyCall["query"];
  readonly signal?: AbortSignal | undefined;
  /** Called before anything can come. */
  readonly prepare: (socket: WebSocket) => void;
}

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
async function refusal(transport: Transport, { name, what }: SocketCall): Promise<VolantError> {
  const { body: vm } = await transport.call("vms.get", { params: { name } });
  if (vm.status === "stopped" || vm.status === "crashed") {
    return new VolantError("wrong_state", `VM "${name}" is ${vm.status}, and has no ${what}`);
  }
  return new VolantError("guest_unreachable", `the ${what} of VM "${name}" can't be opened: it is ${vm.status}`);
}

/**
 * Resolves with the WebSocket once it is open. From then on the signal closes it.
 *
 * @throws VolantError `not_found`, `wrong_state`, `guest_unreachable`, and what keeps from asking why
 */
export async function openSocket(transport: Transport, call: SocketCall): Promise<WebSocket> {
  const { id, name, query, signal, prepare } = call;
  signal?.throwIfAborted();
  const socket = transport.webSocket(id, { name }, query);
  socket.binaryType = "arraybuffer";
  prepare(socket);
  if (!(await opened(socket, signal))) {
    signal?.throwIfAborted();
    throw await refusal(transport, call);
  }
  signal?.addEventListener("abort", () => socket.close(CLOSE_DONE), { once: true });
  return socket;
}

/** Sends bytes in messages that volantd takes; nothing where the socket is not open any more. */
export function sendPieces(socket: WebSocket, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length && socket.readyState === WebSocket.OPEN; at += PIECE_BYTES) {
    socket.send(bytes.slice(at, at + PIECE_BYTES));
  }
}
