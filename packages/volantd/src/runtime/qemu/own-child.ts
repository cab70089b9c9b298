/** A hypervisor that this volantd started. Its end is collected here: until then it stays in the process table, and its pid its own. */
import type { ChildEnd } from "@volant/netlink";

export class OwnChild {
  readonly pid: number;
  #end: Promise<ChildEnd> | undefined;

  constructor(pid: number) {
    this.pid = pid;
  }

  /**
   * How it ended, once it has. To be asked when it is seen to be gone: its first thread is, while others may take a moment longer, and the kernel tells when
   * the last one is.
   */
  end(): Promise<ChildEnd> {
    this.#end ??= this.#collect();
    return this.#end;
  }

  async #collect(): Promise<ChildEnd> {
    // Loaded when it is used: never off Linux.
    const { childEnd } = await import("@volant/netlink");
    return await childEnd(this.pid);
  }
}
