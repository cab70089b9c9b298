/**
 * Keeps what guests may send: the rules and each VM's entry, in nftables; the guard at their taps; and the leases that DHCP servers are seen to
 * give. All of it but the watching is kernel state, and holds while volantd is dead.
 */
import { VolantError } from "@volant/contract";
import { findProgram, HOLDABLE_NAMES, isHoldableTap, isHostAddress, TAP_PREFIX } from "@volant/host";
import {
  GUARD_LINK,
  GuestPolicy,
  isGuestTable,
  type LeaseChange,
  listenForLease,
  type ObservedPolicyTable,
  openFastPath,
  TapGuard,
} from "@volant/host/guest-policy";
import { type Netlink, watchNftables } from "@volant/netlink";
import { parseTapAlias } from "../model/mark.ts";
import { LONGEST_TIMER_MS } from "../model/timer.ts";
import type { SeenPolicy, VmPolicy } from "../plan/policy.ts";
import type { PolicyView, SeenLease } from "./network-manager.ts";
import { PolicyTable } from "./policy-table.ts";

export { GUARD_LINK };

export interface PolicyKeeperOptions {
  readonly netlink: Netlink;
  readonly installation: string;
  /** Called at most once: guests are held all the same, but by a way that takes longer. */
  readonly onSlow?: (reason: string) => void;
}

/** What many readers ask for within this time is read once. */
const COUNTS_FRESH_MS = 500;
/** What is older than this nobody gets: who asks waits for a new count. */
const COUNTS_OLD_MS = 2000;
/** A lease without an end (RFC 2131, 3.3). */
const FOR_EVER = 0xffff_ffff;

const NO_NFT =
  "there is no nft on this host, so that nothing would hold a guest to its address: apt-get install nftables";

interface HeldLease extends SeenLease {
  /** On the clock of performance.now(). */
  readonly untilMs: number;
  readonly timer: NodeJS.Timeout | undefined;
}

interface Following {
  readonly link: number;
  readonly mac: string;
  readonly close: () => void;
}

/** An entry that waits for its turn; `undefined` takes it out. */
interface Waiting {
  readonly vmId: number;
  readonly policy: VmPolicy | undefined;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class PolicyKeeper {
  readonly guard: TapGuard;
  readonly #installation: string;
  readonly #netlink: Netlink;
  #policy: GuestPolicy | undefined;
  readonly #table = new PolicyTable({ open: () => this.#required(), watch: watchNftables, isGuestTable });
  /** What a listing comes to; worked out once for each. */
  #view: { readonly seen: ObservedPolicyTable; readonly view: PolicyView } | undefined;
  /** As it was when whoever watches was last told, or began to. */
  #told: ObservedPolicyTable | undefined;
  #changed: (vmId: number | "all") => void = () => {};
  #waiting: Waiting[] = [];
  #working = false;
  /** The leases of VMs that an earlier volantd followed are in their entries. */
  #adopted = false;
  readonly #leases = new Map<number, HeldLease>();
  readonly #following = new Map<number, Following>();
  #counts: ReadonlyMap<number, { readonly frames: number }> = new Map();
  #counting: Promise<void> | undefined;
  #countedAtMs = Number.NEGATIVE_INFINITY;

  constructor({ netlink, installation, onSlow }: PolicyKeeperOptions) {
    this.guard = new TapGuard(netlink, async () => {
      try {
        return await openFastPath();
      } catch (error) {
        if (error instanceof VolantError) onSlow?.(error.message);
        throw error;
      }
    });
    this.#installation = installation;
    this.#netlink = netlink;
  }

  /**
   * Says now why a tap could not be held to what it is to be held to; one that begins as ours do passes nothing without an entry.
   *
   * @param guarded false where the guest may send what it likes
   * @throws VolantError `not_ready`, `invalid`
   */
  async checkReady(tap: string, guarded: boolean): Promise<void> {
    if (!isHoldableTap(tap) && (guarded || tap.startsWith(TAP_PREFIX))) {
      const message = `the tap ${JSON.stringify(tap)} can't be held to an address by its name: ${HOLDABLE_NAMES}`;
      throw new VolantError("invalid", message, { hint: "leave network.tap out, or say policy.anti_spoof false" });
    }
    if (!guarded || (await this.#opened()) !== undefined) return;
    throw new VolantError("not_ready", NO_NFT, { hint: "or let the VM send what it likes: policy.anti_spoof false" });
  }

  /** The rules, and the indexes of links whose frames go through a guard that is whole, and of those that hear nothing. */
  async observe(): Promise<{
    readonly policy: PolicyView;
    readonly guarded: ReadonlySet<number>;
    readonly deaf: ReadonlySet<number>;
  }> {
    const { whole, bound, deaf } = await this.guard.observe();
    return { policy: await this.#look(), guarded: whole ? bound : new Set(), deaf };
  }

  /** Puts an entry in. Those that come while nft is at work go out together. */
  put(policy: VmPolicy): Promise<void> {
    return this.#enqueue(policy.vmId, policy);
  }

  async remove(vmId: number): Promise<void> {
    this.#following.get(vmId)?.close();
    this.#following.delete(vmId);
    this.#release(vmId);
    await this.#enqueue(vmId, undefined);
  }

  followLease({ vmId, link, mac }: { readonly vmId: number; readonly link: number; readonly mac: string }): void {
    const known = this.#following.get(vmId);
    if (known?.link === link && known.mac === mac) return;
    known?.close();
    const listener = listenForLease({
      link,
      mac,
      holds: this.#leases.has(vmId),
      onChange: (change) => this.#leaseChanged(vmId, change),
      onEnd: () => {
        if (this.#following.get(vmId)?.link === link) this.#following.delete(vmId);
        this.#changed(vmId);
      },
    });
    this.#following.set(vmId, { link, mac, close: () => listener.close() });
  }

  lease(vmId: number): SeenLease | undefined {
    return this.#leases.get(vmId);
  }

  async countDropped(): Promise<void> {
    const ageMs = performance.now() - this.#countedAtMs;
    if (ageMs < COUNTS_FRESH_MS) return;
    this.#counting ??= this.#count().finally(() => (this.#counting = undefined));
    // Who asks often gets what there is, and is not held up; the next one gets more.
    if (ageMs >= COUNTS_OLD_MS) await this.#counting;
  }

  dropped(vmId: number): number | undefined {
    return this.#counts.get(vmId)?.frames;
  }

  /**
   * Calls back when rules, an entry or a lease is another than before, until the signal aborts; and `onForeign` whenever somebody else changed nftables, which
   * is each process but those that change the table for this one.
   */
  async watch(
    onChange: (vmId: number | "all") => void,
    signal: AbortSignal,
    onForeign: () => void = () => {},
  ): Promise<void> {
    this.#changed = onChange;
    for await (const _ of this.#table.watch(signal)) {
      onForeign();
      await this.#tellDifference();
    }
  }

  close(): void {
    for (const { close } of this.#following.values()) close();
    this.#following.clear();
    for (const vmId of this.#leases.keys()) this.#release(vmId);
  }

  async #opened(): Promise<GuestPolicy | undefined> {
    if (this.#policy !== undefined) return this.#policy;
    const nft = await findProgram("nft");
    if (nft !== undefined) {
      const givesWay = (tap: string): Promise<boolean> => this.#isFree(tap);
      this.#policy ??= new GuestPolicy({ installation: this.#installation, nft, givesWay });
    }
    return this.#policy;
  }

  /**
   * Whether a tap is nobody's, or ours. An entry comes a moment before its tap: of two installations that both are about to make one of this name, each may take
   * the other's entry out, until one of them has made the tap.
   */
  async #isFree(tap: string): Promise<boolean> {
    const link = await this.#netlink.links.get(tap);
    return link === undefined || parseTapAlias(link.alias)?.installation === this.#installation;
  }

  async #required(): Promise<GuestPolicy> {
    const policy = await this.#opened();
    if (policy === undefined) throw new VolantError("not_ready", NO_NFT);
    return policy;
  }

  async #look(): Promise<PolicyView> {
    try {
      const seen = await this.#read();
      if (this.#view?.seen !== seen) this.#view = { seen, view: viewOf(seen) };
      return this.#view.view;
    } catch (error) {
      if (!(error instanceof VolantError)) throw error;
      return { usable: false, reason: error.message };
    }
  }

  async #read(): Promise<ObservedPolicyTable> {
    const seen = await this.#table.read();
    if (!this.#adopted) this.#adopt(seen);
    return seen;
  }

  async #tellDifference(): Promise<void> {
    if ((await this.#opened()) === undefined) return;
    const now = await this.#read().catch(() => undefined);
    const before = this.#told;
    this.#told = now;
    if (now === undefined || now.rules !== before?.rules) {
      this.#changed("all");
      return;
    }
    const texts = ({ entries }: ObservedPolicyTable) =>
      new Map(entries.map((entry) => [entry.vmId, JSON.stringify(entry)] as const));
    const [old, current] = [texts(before), texts(now)];
    const differing = new Set([...old.keys(), ...current.keys()].filter((id) => old.get(id) !== current.get(id)));
    for (const vmId of [...differing, ...now.damaged]) this.#changed(vmId);
  }

  /**
   * What an earlier volantd saw of leases is in the entries, but not when: each holds for as long again as it was given for. In that
   * time the guest must have it renewed, which is seen, or it has lost it.
   */
  #adopt({ entries }: ObservedPolicyTable): void {
    this.#adopted = true;
    for (const entry of entries) {
      if (!entry.antiSpoof || entry.mode !== "dhcp" || entry.leaseSeconds === undefined) continue;
      const [address] = entry.addresses;
      if (address !== undefined) this.#hold(entry.vmId, address, entry.leaseSeconds);
    }
  }

  #leaseChanged(vmId: number, change: LeaseChange): void {
    if (change.kind === "lost") this.#release(vmId);
    else this.#hold(vmId, change.address, change.leaseSeconds);
    this.#changed(vmId);
  }

  #hold(vmId: number, address: string, leaseSeconds: number): void {
    this.#release(vmId);
    if (!isHostAddress(address)) return;
    const untilMs = leaseSeconds === FOR_EVER ? Number.POSITIVE_INFINITY : performance.now() + leaseSeconds * 1000;
    this.#leases.set(vmId, { address, leaseSeconds, untilMs, timer: this.#expireAt(vmId, untilMs) });
  }

  /** Lets go of a lease in time. A timer may be too short for it, or fire a little before its time. */
  #expireAt(vmId: number, untilMs: number): NodeJS.Timeout | undefined {
    const leftMs = untilMs - performance.now();
    if (leftMs === Number.POSITIVE_INFINITY) return undefined;
    const expire = () => {
      const lease = this.#leases.get(vmId);
      if (lease === undefined) return;
      if (performance.now() < untilMs) {
        this.#leases.set(vmId, { ...lease, timer: this.#expireAt(vmId, untilMs) });
        return;
      }
      this.#release(vmId);
      this.#changed(vmId);
    };
    return setTimeout(expire, Math.min(LONGEST_TIMER_MS, Math.ceil(leftMs))).unref();
  }

  #release(vmId: number): void {
    clearTimeout(this.#leases.get(vmId)?.timer);
    this.#leases.delete(vmId);
  }

  #enqueue(vmId: number, policy: VmPolicy | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ vmId, policy, resolve, reject });
    void this.#work();
    return promise;
  }

  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      try {
        await this.#apply(batch);
        for (const { resolve } of batch) resolve();
      } catch (error) {
        // One entry that can't be must not keep the others from being.
        if (batch.length === 1) for (const { reject } of batch) reject(error);
        else for (const one of batch) await this.#apply([one]).then(one.resolve, one.reject);
      }
    }
    this.#working = false;
  }

  async #apply(batch: readonly Waiting[]): Promise<void> {
    const last = new Map(batch.map(({ vmId, policy }) => [vmId, policy]));
    const put = [...last.values()].filter((policy) => policy !== undefined);
    const gone = [...last].flatMap(([vmId, policy]) => (policy === undefined ? [vmId] : []));
    await this.#table.change(put, gone);
  }

  async #count(): Promise<void> {
    try {
      const policy = await this.#opened();
      this.#counts = (await policy?.dropped()) ?? new Map();
      this.#countedAtMs = performance.now();
    } catch (error) {
      if (!(error instanceof VolantError)) throw error;
    }
  }
}

function viewOf({ rules, entries, damaged }: ObservedPolicyTable): PolicyView {
  const all: (readonly [number, SeenPolicy | "damaged"])[] = [
    ...entries.map((entry) => [entry.vmId, entry] as const),
    ...damaged.map((vmId) => [vmId, "damaged"] as const),
  ];
  return { usable: true, intact: rules === "intact", entries: new Map(all) };
}
