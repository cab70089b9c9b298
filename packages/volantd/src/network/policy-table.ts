/**
 * The table of guests' policies as this process knows it. It is listed where somebody else has changed it, as the kernel tells; a change of our own leads
 * from what was known to what is, since a listing costs as much as there are VMs.
 */
import type { GuestPolicy, ObservedPolicyTable } from "@volant/host/guest-policy";
import type { NftablesChange, NftablesTable } from "@volant/netlink";
import type { VmPolicy } from "../plan/policy.ts";

export interface PolicyTableOptions {
  /** What reads and changes it. @throws VolantError `not_ready` */
  readonly open: () => Promise<Pick<GuestPolicy, "observe" | "change">>;
  /** The kernel's news: every change of nftables, and whose. */
  readonly watch: (signal: AbortSignal) => AsyncGenerator<NftablesChange, void, undefined>;
  /** Whether a table is the one that is read here. */
  readonly isGuestTable: (table: NftablesTable) => boolean;
}

export class PolicyTable {
  readonly #options: PolicyTableOptions;
  /** As last read, or as our own changes left it; undefined once somebody else changed nftables since. */
  #seen: ObservedPolicyTable | undefined;
  /** Counts what others did: what was read while something came is of no use later. */
  #foreign = 0;
  /** Changes are told, so that what was read stays true until then. */
  #watching = false;
  /** The change under way. Until it is over nobody knows which processes are ours. */
  #changing: Promise<unknown> | undefined;
  /** News that waits for that. */
  #judging: Promise<boolean> | undefined;
  /** Processes that changed the table for us, and whose news has not come yet. */
  readonly #ours = new Set<number>();

  constructor(options: PolicyTableOptions) {
    this.#options = options;
  }

  /** What the table holds. @throws VolantError `not_ready` */
  async read(): Promise<ObservedPolicyTable> {
    while (this.#judging !== undefined) await this.#judging;
    if (this.#watching && this.#seen !== undefined) return this.#seen;
    const before = this.#foreign;
    const own = this.#changing;
    const seen = await (await this.#options.open()).observe();
    // Beside a change of our own nobody can tell which of the two came first.
    if (before === this.#foreign && own === undefined && this.#changing === undefined) this.#seen = seen;
    return seen;
  }

  /** Puts entries in and takes others out, in one transaction. Not to be called again before it is over. @throws VolantError */
  async change(put: readonly VmPolicy[], gone: readonly number[]): Promise<void> {
    const before = this.#foreign;
    const known = this.#watching ? this.#seen : undefined;
    const changing = this.#options.open().then((table) => table.change(put, gone, known));
    this.#changing = changing;
    try {
      const { after, by } = await changing;
      for (const pid of by) this.#ours.add(pid);
      this.#seen = before === this.#foreign ? after : undefined;
    } catch (error) {
      // Some of it may have been done.
      this.#forget();
      throw error;
    } finally {
      this.#changing = undefined;
    }
  }

  /**
   * Yields whenever somebody else changed nftables, in whichever table, until the signal aborts. Where this process is in a pid namespace of its own, its changes can't be told from
   * others', and count as theirs.
   */
  async *watch(signal: AbortSignal): AsyncGenerator<void, void, undefined> {
    const changes = this.#options.watch(signal);
    let next = changes.next();
    this.#watching = true;
    this.#forget();
    try {
      for (;;) {
        const { done, value } = await next;
        if (done === true) return;
        next = changes.next();
        if (await this.#isOurs(value.by)) continue;
        if (value.tables?.some((table) => this.#options.isGuestTable(table)) ?? true) this.#forget();
        yield;
      }
    } finally {
      this.#watching = false;
      this.#forget();
    }
  }

  async #isOurs(by: number | undefined): Promise<boolean> {
    const judge = async (): Promise<boolean> => {
      await this.#changing?.catch(() => {});
      if (by !== undefined) return this.#ours.delete(by);
      // News was missed: what of ours was among it will not come any more.
      this.#ours.clear();
      return false;
    };
    this.#judging = judge();
    const ours = await this.#judging;
    this.#judging = undefined;
    return ours;
  }

  /** What was read of the table is not so any more. */
  #forget(): void {
    this.#seen = undefined;
    this.#foreign += 1;
  }
}
