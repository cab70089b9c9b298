/** The managed bridge's taps and neighbours, over rtnetlink. */
import { accessSync, constants } from "node:fs";
import { VolantError } from "@volant/contract";
import type { Link, Netlink, NetlinkError, NetlinkEvent } from "@volant/netlink";
import { formatAddress, parseAddress } from "../model/address.ts";
import { parseTapAlias, tapAlias } from "../model/mark.ts";
import { tapNames } from "../model/tap-name.ts";
import type { BridgeState, ObservedTap } from "../plan/observed.ts";
import type { BridgeNeighbour, MarkedTap, NetworkManager, NetworkView, TapRequest } from "./network-manager.ts";

const TUN_DEVICE = "/dev/net/tun";

export interface BridgeManagerOptions {
  readonly netlink: Netlink;
  readonly installation: string;
  readonly bridge: string;
  /** The host's address on the bridge. */
  readonly hostAddress: string;
  /** Puts back what set-up recorded, and says what was missing. */
  readonly restore: () => Promise<readonly string[]>;
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
  readonly #netlink: Netlink;
  readonly #installation: string;
  readonly #bridge: string;
  /** Bridges other than ours that taps of ours are, or were meant to be, ports of: what happens to them concerns us. */
  readonly #joined = new Set<string>();
  readonly #hostAddress: string;
  readonly #restore: () => Promise<readonly string[]>;
  /** As last seen: events about addresses name a link by its index alone. */
  #bridgeIndex: number | undefined;
  #deletes: PendingDelete[] = [];
  #deleting = false;

  constructor({ netlink, installation, bridge, hostAddress, restore }: BridgeManagerOptions) {
    this.#netlink = netlink;
    this.#installation = installation;
    this.#bridge = bridge;
    this.#hostAddress = hostAddress;
    this.#restore = restore;
  }

  tapNames(vmName: string): Iterable<string> {
    return tapNames(vmName);
  }

  async checkReady(tap: string, bridge = this.#bridge): Promise<void> {
    const found = await this.#netlink.links.get(bridge);
    if (found?.kind !== "bridge") {
      const problem = found === undefined ? "does not exist" : "is not a bridge";
      const hint = bridge === this.#bridge ? "run: volar setup" : "name one that exists with network.bridge";
      throw new VolantError("not_ready", `bridge ${bridge} ${problem}`, { hint });
    }
    const taken = await this.#netlink.links.get(tap);
    if (taken !== undefined && parseTapAlias(taken.alias)?.installation !== this.#installation) {
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

  async observe(): Promise<NetworkView> {
    const links = await this.#netlink.links.list({ stats: false, acceptInterrupted: true });
    const bridge = links.find(({ name }) => name === this.#bridge);
    const bridges = new Map(links.filter(({ kind }) => kind === "bridge").map((link) => [link.index, link]));
    this.#bridgeIndex = bridge?.index;
    const taps: MarkedTap[] = [];
    const foreignNames = new Set<string>();
    for (const link of links) {
      const mark = parseTapAlias(link.alias);
      if (mark?.installation === this.#installation) {
        taps.push(markedTap(link, mark.vmId, link.master === undefined ? undefined : bridges.get(link.master)?.name));
      } else foreignNames.add(link.name);
    }
    const others = [...bridges.values()].filter(({ name }) => name !== this.#bridge);
    for (const tap of taps) if (tap.bridge !== undefined && tap.bridge !== this.#bridge) this.#joined.add(tap.bridge);
    return {
      network: {
        managed: true,
        bridge: bridgeState(bridge),
        bridgeName: this.#bridge,
        addressed: bridge !== undefined && (await this.#hasAddress(bridge.index)),
      },
      otherBridges: new Map(others.map((link) => [link.name, bridgeState(link)])),
      taps,
      foreignNames,
      neighbours: bridge === undefined ? [] : await this.#neighbours(bridge.index),
    };
  }

  async #hasAddress(bridge: number): Promise<boolean> {
    const addresses = await this.#netlink.addresses.list({ link: bridge, family: "inet" });
    return addresses.some(({ address }) => address === this.#hostAddress);
  }

  async #neighbours(bridge: number): Promise<BridgeNeighbour[]> {
    const entries = await this.#netlink.neighbours.list({ link: bridge, family: "inet" });
    return entries.flatMap(({ address, mac, state }) => {
      const number = parseAddress(address);
      return state !== "permanent" || number === undefined || mac === undefined ? [] : [{ address: number, mac }];
    });
  }

  async bringBridgeUp(): Promise<void> {
    await this.#netlink.links.set(this.#bridge, { up: true });
  }

  restoreHost(): Promise<readonly string[]> {
    return this.#restore();
  }

  async createTap({ vmId, name, uid, bridge = this.#bridge }: TapRequest): Promise<void> {
    if (bridge !== this.#bridge) this.#joined.add(bridge);
    const alias = tapAlias({ installation: this.#installation, vmId });
    try {
      await this.#netlink.taps.create({
        name,
        owner: uid,
        // No IPv6 link-local address for the host on a guest's wire.
        attach: { master: bridge, alias, up: true, addressGeneration: "none" },
      });
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error;
      throw new VolantError("exists", `a link named ${name} exists already`, { cause: error });
    }
  }

  async repairTap(tap: Pick<ObservedTap, "index">, bridge = this.#bridge): Promise<void> {
    await this.#netlink.links.set(tap.index, { master: bridge, up: true });
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
    for await (const event of this.#netlink.subscribe(["link", "address"], { signal })) {
      const changed = this.#changedBy(event);
      if (changed !== undefined) onChange(changed);
    }
  }

  #changedBy(event: NetlinkEvent): number | "all" | undefined {
    if (event.type === "overrun") return "all";
    if (event.type === "address") return event.address.link === this.#bridgeIndex ? "all" : undefined;
    if (event.type !== "link" && event.type !== "bridge-port") return undefined;
    const { name } = event.link;
    if (name === this.#bridge || this.#joined.has(name)) return event.type === "link" ? "all" : undefined;
    const mark = parseTapAlias(event.link.alias);
    return mark?.installation === this.#installation ? mark.vmId : undefined;
  }

  async close(): Promise<void> {
    await this.#netlink.close();
  }
}

function bridgeState(bridge: Link | undefined): BridgeState {
  if (bridge === undefined) return "missing";
  if (bridge.kind !== "bridge") return "not_a_bridge";
  return bridge.flags.up ? "up" : "down";
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
