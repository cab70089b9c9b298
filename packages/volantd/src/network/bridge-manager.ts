/** The managed bridge's taps and neighbours, over rtnetlink. */
import { accessSync, constants } from "node:fs";
import { VolantError } from "@volant/contract";
import { MAX_BRIDGE_PORTS } from "@volant/host";
import type { SetupCondition } from "@volant/host";
import { type Link, type Netlink, type NetlinkError, type NetlinkEvent, watchForwarding } from "@volant/netlink";
import { formatAddress, parseAddress } from "../model/address.ts";
import { othersTap, parseTapAlias, tapAlias } from "../model/mark.ts";
import { tapNames } from "../model/tap-name.ts";
import type { BridgeState, ObservedTap } from "../plan/observed.ts";
import type { VmPolicy } from "../plan/policy.ts";
import type {
  BridgeNeighbour,
  MarkedTap,
  NetworkManager,
  NetworkView,
  SeenLease,
  TapRequest,
} from "./network-manager.ts";
import { FurtherBridges, type SeenFurther } from "./further-bridges.ts";
import { canPutBack, type LanBridges } from "./lan-bridges.ts";
import { GUARD_LINK, type PolicyKeeper } from "./policy-keeper.ts";
import { SetupWatch } from "./setup-watch.ts";
import { MANAGED, placeLimits, type PlaceLimits } from "./tap-places.ts";
import { TapPlacing } from "./tap-placing.ts";

const TUN_DEVICE = "/dev/net/tun";
/** A further bridge that has been empty for so long goes. */
const EMPTY_FOR_MS = 60_000;

export interface BridgeManagerOptions {
  readonly netlink: Netlink;
  readonly installation: string;
  readonly bridge: string;
  /** The host's address on the bridge. */
  readonly hostAddress: string;
  readonly lans: Pick<LanBridges, "check" | "made">;
  /** Puts back what set-up recorded, and says what was missing. */
  readonly restore: () => Promise<readonly string[]>;
  /** Looks whether all of that is there. @throws VolantError when the record can't be read */
  readonly inspect?: () => Promise<SetupCondition>;
  /** What an operator should see of it. */
  readonly warn?: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly policy: PolicyKeeper;
  /** How taps are spread over bridges. Default: as many to a bridge as Linux takes. */
  readonly limits?: PlaceLimits;
  /** How long a further bridge stays once it is empty. Default: a minute. */
  readonly emptyForMs?: number;
}

/** Deletes that wait for their turn together; see {@link BridgeManager.deleteTap}. */
interface PendingDelete {
  readonly tap: Pick<ObservedTap, "index" | "name">;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

function hasCode(error: unknown, ...codes: readonly string[]): error is NetlinkError {
  return error instanceof Error && error.name === "NetlinkError" && codes.includes((error as NetlinkError).code);
}

export class BridgeManager implements NetworkManager {
  readonly manages = true;
  readonly #netlink: Netlink;
  readonly #installation: string;
  readonly #bridge: string;
  /** Bridges other than ours that taps of ours are, or were meant to be, ports of: what happens to them concerns us. */
  readonly #joined = new Set<string>();
  readonly #hostAddress: string;
  readonly #lans: BridgeManagerOptions["lans"];
  readonly #restore: () => Promise<readonly string[]>;
  readonly #policy: PolicyKeeper;
  readonly #setup: SetupWatch;
  /** Has what is missing put back, while somebody watches. */
  #setupDamaged: () => void = () => {};
  /** As last seen: events about addresses name a link by its index alone. */
  #bridgeIndex: number | undefined;
  /** The same, where it is a bridge. */
  #seenBridge: number | undefined;
  /** Its MAC and its mark, as last seen: what a look at it does not judge. */
  #bridgeFace: string | undefined;
  readonly #further: FurtherBridges;
  readonly #placing: TapPlacing;
  readonly #emptyForMs: number;
  /** Since when further bridges are empty, on the clock of performance.now(). */
  readonly #emptySinceMs = new Map<number, number>();
  readonly #removing = new Set<number>();
  /** Names of taps that are being made: they are there for a moment before they bear our mark. */
  readonly #making = new Set<string>();
  /** One restoring at a time: another one at work would refuse. */
  #restoring: Promise<unknown> = Promise.resolve();
  /** As the last look showed them, by index. */
  #tapsSeen: ReadonlyMap<number, SeenTap> = new Map();
  /** As the last look showed them, by address. */
  #neighboursSeen: ReadonlyMap<string, BridgeNeighbour> = new Map();
  #deletes: PendingDelete[] = [];
  #deleting = false;

  constructor(options: BridgeManagerOptions) {
    const { netlink, installation, bridge, hostAddress, lans, restore, policy, limits, emptyForMs } = options;
    this.#netlink = netlink;
    this.#installation = installation;
    this.#bridge = bridge;
    this.#hostAddress = hostAddress;
    this.#lans = lans;
    this.#restore = restore;
    this.#policy = policy;
    this.#placing = new TapPlacing(limits ?? placeLimits(MAX_BRIDGE_PORTS));
    this.#emptyForMs = emptyForMs ?? EMPTY_FOR_MS;
    this.#setup = new SetupWatch({
      inspect: options.inspect ?? (() => Promise.resolve({ state: "absent", missing: [], untold: false })),
      monotonicMs: () => performance.now(),
      onDamage: () => this.#setupDamaged(),
      warn: options.warn ?? (() => {}),
    });
    const { guard } = policy;
    this.#further = new FurtherBridges({ netlink, installation, bridge, guard, allow: () => this.#restoreSetup() });
  }

  tapNames(vmName: string): Iterable<string> {
    return tapNames(vmName);
  }

  async checkReady(tap: string, bridge = this.#bridge, guarded = false): Promise<void> {
    if (bridge !== this.#bridge) await this.#lans.check(bridge);
    await this.#policy.checkReady(tap, guarded);
    const found = this.#isAsSeen(bridge) ? { kind: "bridge" } : await this.#netlink.links.get(bridge);
    if (found?.kind !== "bridge") {
      const problem = found === undefined ? "does not exist" : "is not a bridge";
      const hint = bridge === this.#bridge ? "run: volar setup" : "name one that exists with network.bridge";
      throw new VolantError("not_ready", `bridge ${bridge} ${problem}`, { hint });
    }
    const isOwn = this.#making.has(tap);
    // Most names are free, which is told without waiting.
    const taken = this.#netlink.links.indexOf(tap) === undefined ? undefined : await this.#netlink.links.get(tap);
    const isMaking = isOwn || this.#making.has(tap);
    const holder = parseTapAlias(taken?.alias)?.installation;
    if (!isMaking && taken !== undefined && holder !== this.#installation) {
      if (holder !== undefined) {
        const { message, hint } = othersTap(tap, holder);
        throw new VolantError("exists", message, { hint: `${hint}; or give the VM another one with network.tap` });
      }
      throw new VolantError("exists", `a link named ${tap} exists that is not Volant's: it is left alone`, {
        hint: "remove it, or give the VM another tap with network.tap",
      });
    }
    try {
      accessSync(TUN_DEVICE, constants.R_OK | constants.W_OK);
    } catch (error) {
      throw new VolantError("not_ready", `${TUN_DEVICE} is missing or can't be opened`, {
        hint: "run: modprobe tun",
        cause: error,
      });
    }
  }

  /** Whether it is the managed bridge that the last look showed: an index is one link's for its life. */
  #isAsSeen(bridge: string): boolean {
    if (bridge !== this.#bridge || this.#seenBridge === undefined) return false;
    return this.#netlink.links.indexOf(bridge) === this.#seenBridge;
  }

  async linkWithMac(mac: string): Promise<string | undefined> {
    const links = await this.#netlink.links.list({ stats: false, acceptInterrupted: true });
    return links.find((link) => link.mac === mac)?.name;
  }

  async observe(): Promise<NetworkView> {
    const look = this.#placing.begin();
    const links = await this.#netlink.links.list({ stats: false, acceptInterrupted: true });
    const bridge = links.find(({ name }) => name === this.#bridge);
    const bridges = new Map(links.filter(({ kind }) => kind === "bridge").map((link) => [link.index, link]));
    this.#bridgeIndex = bridge?.index;
    this.#seenBridge = bridge?.kind === "bridge" ? bridge.index : undefined;
    this.#bridgeFace = bridge === undefined ? undefined : faceOf(bridge);
    const { policy, guarded, deaf } = await this.#policy.observe();
    const further = this.#further.observe(links, deaf);
    this.#placing.seen(look, portsByPlace(links, bridge, further), (place) => this.#further.isTaken(place));
    this.#sweep(further);
    const furtherIndexes = new Set([...further.values()].flatMap((one) => one.bridge?.index ?? []));
    const seen: SeenTap[] = [];
    const foreignNames = new Map<string, string | undefined>();
    for (const link of links) {
      const mark = parseTapAlias(link.alias);
      if (mark?.installation === this.#installation) {
        const master = link.master ?? 0;
        // A further bridge is a part of the managed one, to all but this file.
        const joined = furtherIndexes.has(master) ? this.#bridge : bridges.get(master)?.name;
        seen.push(this.#tapOf(link, mark.vmId, joined, guarded.has(link.index)));
      } else foreignNames.set(link.name, mark?.installation);
    }
    this.#tapsSeen = new Map(seen.map((one) => [one.tap.index, one]));
    const taps = seen.map(({ tap }) => tap);
    const lans = await this.#lans.made();
    for (const { bridge: name } of lans) this.#joined.add(name);
    const others = [...bridges.values()].filter(
      ({ name, index }) => name !== this.#bridge && !furtherIndexes.has(index),
    );
    for (const tap of taps) if (tap.bridge !== undefined && tap.bridge !== this.#bridge) this.#joined.add(tap.bridge);
    return {
      network: {
        managed: true,
        bridge: bridgeState(bridge),
        bridgeName: this.#bridge,
        addressed: bridge !== undefined && (await this.#hasAddress(bridge.index)),
        ...(lans.some((lan) => canPutBack(lan, links)) ? { lanGone: true } : {}),
        ...([...further.values()].some((one) => one.bridge !== undefined && !one.whole) ? { furtherBroken: true } : {}),
        ...(this.#setup.damaged ? { setupDamaged: true } : {}),
      },
      otherBridges: new Map(others.map((link) => [link.name, bridgeState(link)])),
      taps,
      foreignNames,
      neighbours: bridge === undefined ? [] : await this.#neighbours(bridge.index),
      policy,
    };
  }

  /** The same object as at the last look, where it would say the same: a link is the same for as long as the kernel says the same of it. */
  #tapOf(link: Link, vmId: number, bridge: string | undefined, guarded: boolean): SeenTap {
    const before = this.#tapsSeen.get(link.index);
    const isSame = before?.link === link && before.tap.bridge === bridge && before.tap.guarded === guarded;
    return isSame ? before : { link, tap: { ...markedTap(link, vmId, bridge), guarded } };
  }

  async #hasAddress(bridge: number): Promise<boolean> {
    const addresses = await this.#netlink.addresses.list({ link: bridge, family: "inet" });
    return addresses.some(({ address }) => address === this.#hostAddress);
  }

  async #neighbours(bridge: number): Promise<BridgeNeighbour[]> {
    const entries = await this.#netlink.neighbours.list({ link: bridge, family: "inet" });
    const seen = new Map<string, BridgeNeighbour>();
    for (const { address, mac, state } of entries) {
      if (state !== "permanent" || mac === undefined) continue;
      // Most are as the last look showed them.
      const before = this.#neighboursSeen.get(address);
      const number = before?.mac === mac ? before.address : parseAddress(address);
      if (number !== undefined) seen.set(address, before?.mac === mac ? before : { address: number, mac });
    }
    this.#neighboursSeen = seen;
    return [...seen.values()];
  }

  async bringBridgeUp(): Promise<void> {
    await this.#netlink.links.set(this.#bridge, { up: true });
  }

  async restoreHost(): Promise<readonly string[]> {
    const restored = await this.#restoreSetup();
    // Where the managed bridge could not be put back, there is nothing to join them to.
    const bridge = await this.#netlink.links.get(this.#bridge);
    return bridge?.kind === "bridge" ? [...restored, ...(await this.#further.repair())] : restored;
  }

  #restoreSetup(): Promise<readonly string[]> {
    const run = this.#restoring.then(async () => {
      const restored = await this.#restore();
      this.#setup.restored();
      return restored;
    });
    this.#restoring = run.catch(() => undefined);
    return run;
  }

  async createTap(request: TapRequest): Promise<void> {
    const { name, bridge = this.#bridge } = request;
    if (bridge === this.#bridge) {
      await this.#withPort(name, (joined) => this.#makeTap(request, joined));
      return;
    }
    // It may have been allowed when the VM was made, and not be so any more.
    await this.#lans.check(bridge);
    this.#joined.add(bridge);
    try {
      await this.#makeTap(request, bridge);
    } catch (error) {
      if (!hasCode(error, "EXFULL")) throw error;
      throw new VolantError("not_ready", `the bridge ${bridge} has no port left: Linux allows ${MAX_BRIDGE_PORTS}`, {
        hint: "let the VM join another bridge with network.bridge, or delete VMs that are on this one",
        cause: error,
      });
    }
  }

  /** Does something with a port of the managed bridge, or of a further one where that is full. */
  async #withPort(tap: string, work: (bridge: string) => Promise<void>): Promise<void> {
    for (;;) {
      const promise = this.#placing.take(tap);
      if (promise === undefined) {
        throw new VolantError(
          "not_ready",
          `no further tap can join ${this.#bridge}: all its further bridges are full`,
          {
            hint: "delete VMs, or give some another bridge with network.bridge",
          },
        );
      }
      const { place, settle } = promise;
      try {
        await work(place === MANAGED ? this.#bridge : await this.#further.ensure(place));
        return;
      } catch (error) {
        // Somebody else has taken a port since the last look. Each place refuses once until the next look, so this ends.
        if (!hasCode(error, "EXFULL")) throw error;
        this.#placing.refuse(place);
      } finally {
        settle();
      }
    }
  }

  /** Removes further bridges that have been empty for a while. */
  #sweep(further: ReadonlyMap<number, SeenFurther>): void {
    const now = performance.now();
    for (const number of this.#emptySinceMs.keys()) if (!further.has(number)) this.#emptySinceMs.delete(number);
    for (const number of further.keys()) {
      if (!this.#placing.isUnused(number)) {
        this.#emptySinceMs.delete(number);
        continue;
      }
      const since = this.#emptySinceMs.get(number) ?? now;
      this.#emptySinceMs.set(number, since);
      if (now - since < this.#emptyForMs || this.#removing.has(number)) continue;
      this.#removing.add(number);
      void this.#further
        .remove(number, () => !this.#placing.isUnused(number))
        // What can't be removed now is tried again after the next look.
        .catch(() => undefined)
        .finally(() => this.#removing.delete(number));
    }
  }

  async #makeTap({ vmId, name, uid, guarded = false }: TapRequest, bridge: string): Promise<void> {
    const alias = tapAlias({ installation: this.#installation, vmId });
    this.#making.add(name);
    try {
      await this.#netlink.taps.create({
        name,
        owner: uid,
        ...(guarded ? { beforeAttach: (index: number) => this.#policy.guard.bind(index) } : {}),
        // No IPv6 link-local address for the host on a guest's wire.
        attach: { master: bridge, alias, up: true, addressGeneration: "none" },
      });
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error;
      throw new VolantError("exists", `a link named ${name} exists already`, { cause: error });
    } finally {
      this.#making.delete(name);
    }
  }

  async repairTap(
    { index, name }: Pick<ObservedTap, "index" | "name">,
    bridge = this.#bridge,
    guarded = false,
  ): Promise<void> {
    if (guarded) await this.#policy.guard.bind(index);
    else await this.#policy.guard.unbind(index);
    const join = (master: string) => this.#netlink.links.set(index, { master, up: true });
    if (bridge !== this.#bridge) return await join(bridge);
    // One that has its place keeps it.
    if (this.#placing.of(name) !== undefined) return await this.#netlink.links.set(index, { up: true });
    await this.#withPort(name, join);
  }

  /**
   * One at a time costs 20 ms each, since the kernel waits for a grace period. Those that come while one is under way are deleted together, as a
   * link group made for them.
   */
  deleteTap(tap: Pick<ObservedTap, "index" | "name">): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#deletes.push({ tap, resolve, reject });
    void this.#deleteAll();
    return promise;
  }

  async #deleteAll(): Promise<void> {
    if (this.#deleting) return;
    this.#deleting = true;
    while (this.#deletes.length > 0) {
      const batch = this.#deletes;
      this.#deletes = [];
      try {
        await this.#netlink.links.deleteMany(batch.map(({ tap }) => tap));
        for (const { resolve } of batch) resolve();
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#deleting = false;
  }

  putPolicy(policy: VmPolicy): Promise<void> {
    return this.#policy.put(policy);
  }

  removePolicy(vmId: number): Promise<void> {
    return this.#policy.remove(vmId);
  }

  followLease(guest: { readonly vmId: number; readonly link: number; readonly mac: string }): void {
    this.#policy.followLease(guest);
  }

  lease(vmId: number): SeenLease | undefined {
    return this.#policy.lease(vmId);
  }

  countDropped(): Promise<void> {
    return this.#policy.countDropped();
  }

  dropped(vmId: number): number | undefined {
    return this.#policy.dropped(vmId);
  }

  async setNeighbour({ address, mac }: BridgeNeighbour): Promise<void> {
    await this.#netlink.neighbours.set({ link: this.#bridge, address: formatAddress(address), mac, permanent: true });
  }

  async deleteNeighbour(address: number): Promise<void> {
    try {
      await this.#netlink.neighbours.delete({ link: this.#bridge, address: formatAddress(address) });
    } catch (error) {
      if (!hasCode(error, "ENOENT", "ENODEV")) throw error;
    }
  }

  async watch(onChange: (vmId: number | "all") => void, signal: AbortSignal): Promise<void> {
    this.#setupDamaged = () => onChange("all");
    const ours = this.#policy.watch(onChange, signal, () => this.#setup.doubt());
    const watching = Promise.all([this.#watchLinks(onChange, signal), this.#watchForwarding(signal), ours]);
    // Each of them has begun to listen: what happened before is seen by this look.
    this.#setup.begin(signal);
    await watching;
  }

  /** Set-up turned it on for all links. One that comes without it may be anybody's, and is of no account. */
  async #watchForwarding(signal: AbortSignal): Promise<void> {
    for await (const change of watchForwarding(signal)) if (change.link === "missed" || !change.on) this.#setup.doubt();
  }

  async #watchLinks(onChange: (vmId: number | "all") => void, signal: AbortSignal): Promise<void> {
    for await (const event of this.#netlink.subscribe(["link", "address"], { signal, stats: false })) {
      const changed = this.#changedBy(event);
      if (changed !== undefined) onChange(changed);
    }
  }

  #changedBy(event: NetlinkEvent): number | "all" | undefined {
    if (event.type === "overrun") return "all";
    if (event.type === "address") return event.address.link === this.#bridgeIndex ? "all" : undefined;
    if (event.type !== "link" && event.type !== "bridge-port") return undefined;
    const { name } = event.link;
    if (name === GUARD_LINK) return "all";
    if (name === this.#bridge && event.type === "link" && faceOf(event.link) !== this.#bridgeFace) this.#setup.doubt();
    if (name === this.#bridge || this.#joined.has(name)) return event.type === "link" ? "all" : undefined;
    if (event.type === "link" && this.#further.isNews(event.link, event.action)) return "all";
    const mark = parseTapAlias(event.link.alias);
    return mark?.installation === this.#installation ? mark.vmId : undefined;
  }

  async close(): Promise<void> {
    this.#policy.close();
    await this.#netlink.close();
  }
}

/** Names of the ports of the managed bridge and its further ones, without trunks. */
function portsByPlace(
  links: readonly Link[],
  managed: Link | undefined,
  further: ReadonlyMap<number, SeenFurther>,
): ReadonlyMap<number, ReadonlySet<string>> {
  const places = new Map<number, number>();
  const ports = new Map<number, Set<string>>([[MANAGED, new Set()]]);
  if (managed !== undefined) places.set(managed.index, MANAGED);
  const trunks = new Set<number>();
  for (const { number, bridge, near, far } of further.values()) {
    for (const end of [near, far]) if (end !== undefined) trunks.add(end.index);
    if (bridge === undefined) continue;
    places.set(bridge.index, number);
    ports.set(number, new Set());
  }
  for (const { index, name, master } of links) {
    const place = master === undefined ? undefined : places.get(master);
    if (place !== undefined && !trunks.has(index)) ports.get(place)?.add(name);
  }
  return ports;
}

function faceOf({ mac, alias }: Link): string {
  return `${mac} ${alias ?? ""}`;
}

function bridgeState(bridge: Link | undefined): BridgeState {
  if (bridge === undefined) return "missing";
  if (bridge.kind !== "bridge") return "not_a_bridge";
  return bridge.flags.up ? "up" : "down";
}

/** A tap, and what it was made from. */
interface SeenTap {
  readonly link: Link;
  readonly tap: MarkedTap;
}

function markedTap(link: Link, vmId: number, bridge: string | undefined): MarkedTap {
  const { tap } = link;
  return {
    vmId,
    index: link.index,
    name: link.name,
    up: link.flags.up,
    bridge,
    usable: tap?.vnetHdr === true && tap.persist === true && tap.packetInfo !== true && tap.multiQueue !== true,
    owner: tap?.owner,
  };
}
