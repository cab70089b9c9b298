import type { Duplex } from "node:stream";
import { encodeExecStart, type ExecStart } from "@volant/contract/exec-frames";
import type { TransportOptions } from "../transport.ts";
import { GuestProcess } from "./guest-process.ts";
import { openUpgrade } from "./upgrade.ts";

export { copyFromGuest, copyToGuest, readGuestFile, type Copied, type CopyOptions } from "./copy.ts";
export type { Unpacked } from "./unpack.ts";
export { GuestProcess } from "./guest-process.ts";
export type { ExecExit, ExecStart, TerminalSize } from "@volant/contract/exec-frames";

export interface StreamOptions {
  /** Gives the attempt up, or breaks the stream off. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Streams into guests, as Node has them. Browsers, and whoever wants the Web's streams, have `volant.vms.exec` and `volant.vms.console`.
 *
 *     const streams = new GuestStreams({ baseUrl: "http://127.0.0.1:7777" });
 *     const process = await streams.exec("web-1", { argv: ["uname", "-r"] });
 *     process.stdin.end();
 *     process.stdout.pipe(stdout);
 *     const exit = await process.exit;
 */
export class GuestStreams {
  readonly #options: TransportOptions;

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** Runs a program in a guest. @throws VolantError `not_found`, `wrong_state`, `guest_unreachable`, `too_large` */
  async exec(vm: string, start: ExecStart, options: StreamOptions = {}): Promise<GuestProcess> {
    const first = encodeExecStart(start);
    const socket = await openUpgrade(this.#options, { id: "vms.exec", vm, ...options });
    socket.write(first);
    return new GuestProcess(socket);
  }

  /**
   * A VM's serial console: what is printed from now on, and takes what is typed. It ends with the VM's run.
   *
   * @throws VolantError `not_found`, `wrong_state`, `guest_unreachable`
   */
  console(vm: string, options: StreamOptions = {}): Promise<Duplex> {
    return openUpgrade(this.#options, { id: "vms.console", vm, ...options });
  }

  /** One TCP connection to a port of a guest's 127.0.0.1. @throws VolantError `guest_unreachable` when nothing listens there */
  forward(vm: string, port: number, options: StreamOptions = {}): Promise<Duplex> {
    return openUpgrade(this.#options, { id: "vms.forward", vm, query: { port: String(port) }, ...options });
  }
}
