import {
  decodeLink,
  type Link,
  type LinkAttributes,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  RTM_SETLINK,
} from "./codec/link.ts";
import { type AddressGeneration, writeBridgePort, writeLink, writeLinkInfo, writeLinkRequest } from "./codec/link.ts";
import {
  type BridgeOptions,
  type BridgePortOptions,
  type VxlanOptions,
  writeBridgeOptions,
  writeKind,
  writeVxlanOptions,
} from "./codec/link-kinds.ts";
import { KnownLinks } from "./codec/known-links.ts";
import { type NetlinkMessage, NLM_F_CREATE, NLM_F_EXCL } from "./codec/message.ts";
import { decodeStats, encodeStatsRequest, type LinkCounters, RTM_GETSTATS, RTM_NEWSTATS } from "./codec/stats.ts";
import type { MessageWriter } from "./codec/writer.ts";
import { invalidArgument, NetlinkError } from "./errors.ts";
import { linkLabel, type LinkRef, resolveIndex, type Session } from "./session.ts";
import { libc } from "./transport/libc.ts";
import { checkAlias, checkIp, checkLinkName, checkMac, checkNumber } from "./validate.ts";

/** VETH_INFO_PEER (include/uapi/linux/veth.h). */
const VETH_INFO_PEER = 1;
const MAX_MTU = 65_535;
const MAX_U32 = 0xffff_ffff;
const MAX_INDEX = 0x7fff_ffff;
const MAX_VNI = 0xff_ffff;

export interface LinkListOptions {
  /** Only the ports of this bridge or other master. */
  readonly master?: LinkRef;
  /** Only links of this kind: `bridge`, `tun` (which taps are), `veth`, … */
  readonly kind?: string;
  /** Whether links carry their counters. The default is true. */
  readonly stats?: boolean;
  /**
   * Takes the answer although links came or went meanwhile, instead of asking again and, after eight times,
   * failing with EINTR. Recent kernels walk by index, so that what was there all the time is in it exactly once; older
   * ones may miss a link.
   */
  readonly acceptInterrupted?: boolean;
}

/** What every link can be given when it is made. */
export interface CommonLinkOptions {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  readonly up?: boolean;
  readonly master?: LinkRef;
  readonly alias?: string;
  readonly group?: number;
  readonly txQueueLength?: number;
  readonly addressGeneration?: AddressGeneration;
}

export type LinkCreate = CommonLinkOptions &
  (
    | ({ readonly kind: "bridge" } & BridgeOptions)
    | { readonly kind: "veth"; readonly peer: { readonly name: string; readonly mac?: string; readonly up?: boolean } }
    | ({ readonly kind: "vxlan" } & Omit<VxlanOptions, "underlay"> & { readonly underlay?: LinkRef })
    /** `queues`: how many processors may send by it at a time; one when absent. */
    | { readonly kind: "ifb"; readonly queues?: number }
  );

/** What can be changed. Absent fields stay as they are. */
export interface LinkChange {
  readonly up?: boolean;
  /** null takes the link out of its bridge. */
  readonly master?: LinkRef | null;
  /** An empty alias removes it. */
  readonly alias?: string;
  readonly group?: number;
  readonly mtu?: number;
  readonly mac?: string;
  /** The new name; most drivers allow it only while the link is down. */
  readonly name?: string;
  readonly txQueueLength?: number;
  readonly carrier?: boolean;
  readonly addressGeneration?: AddressGeneration;
}

/** Network interfaces. */
export class Links {
  readonly #session: Session;
  /** As the last list of all without counters showed them. */
  #known = new KnownLinks();

  constructor(session: Session) {
    this.#session = session;
  }

  /** Every link of the namespace that the options ask for, in the order of their indexes. */
  async list(options: LinkListOptions = {}): Promise<Link[]> {
    const operation = "list links";
    const master = options.master === undefined ? undefined : await resolveIndex(options.master, operation);
    const { kind } = options;
    const isAll = options.stats === false && master === undefined && kind === undefined;
    const known = new KnownLinks();
    const links = await this.#session.socket.dump(
      {
        operation,
        type: RTM_GETLINK,
        acceptInterrupted: options.acceptInterrupted,
        write: (writer) => writeLinkRequest(writer, undefined, { master, kind, stats: options.stats }),
      },
      (message) => {
        if (!isAll || message.type !== RTM_NEWLINK) return linkOf(message, options.stats);
        // Of the list that was over last, which may have begun after this one was asked for.
        return known.add(message.body, this.#known);
      },
    );
    if (isAll) this.#known = known;
    // Kernels without strict checking ignore the filters.
    return links.filter(
      (link) => (master === undefined || link.master === master) && (kind === undefined || link.kind === kind),
    );
  }

  /** One link, or undefined when there is none of that name or index. */
  async get(link: LinkRef): Promise<Link | undefined> {
    if (typeof link === "string") checkLinkName("get link", link);
    const write = (writer: MessageWriter) => writeLinkRequest(writer, link, {});
    return absentWhen(["ENODEV"], () =>
      this.#session.socket.get(
        { operation: "get link", object: linkLabel(link), type: RTM_GETLINK, write },
        (message) => linkOf(message),
      ),
    );
  }

  /** The index of the link of this name, or undefined when there is none. The kernel looks it up without a lock (SIOCGIFINDEX, netdevice(7)): this never waits. */
  indexOf(name: string): number | undefined {
    checkLinkName("find link", name);
    const index = libc().nameToIndex(name);
    return index < 0 ? undefined : index;
  }

  /** The counters of every link, by index. Cheaper than `list`: nothing but counters is asked for. */
  async counters(): Promise<Map<number, LinkCounters>> {
    const entries = await this.#session.socket.dump(
      {
        operation: "list counters",
        type: RTM_GETSTATS,
        acceptInterrupted: true,
        write: (writer) => encodeStatsRequest(writer, 0),
      },
      (message) => (message.type === RTM_NEWSTATS ? decodeStats(message.body) : undefined),
    );
    const byIndex = new Map<number, LinkCounters>();
    for (const { index, counters } of entries) if (counters !== undefined) byIndex.set(index, counters);
    return byIndex;
  }

  /**
   * Makes a link and returns it. EEXIST when the name is taken. An alias takes a message more (the kernel ignores it in
   * the first), and so does bringing a veth's peer up; when one fails, the link is deleted again.
   */
  async create(options: LinkCreate): Promise<Link> {
    const operation = `create ${options.kind}`;
    const { name } = options;
    checkLinkName(operation, name);
    const attributes = await this.#attributes(operation, name, options);
    const txQueues = options.kind === "ifb" ? options.queues : undefined;
    if (txQueues !== undefined) checkNumber(operation, name, "the number of queues", txQueues, [1, 4096]);
    const writeInfo = await kindWriter(operation, options);
    await this.#session.socket.change({
      operation,
      object: name,
      type: RTM_NEWLINK,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      write: (writer) => {
        writeLink(writer, 0, { ...attributes, txQueues, alias: undefined });
        writeLinkInfo(writer, () => writeInfo(writer));
      },
    });
    try {
      // The kernel makes the peer first, and refuses to bring it up while it is alone.
      if (options.kind === "veth" && options.peer.up === true) await this.set(options.peer.name, { up: true });
      if (options.alias !== undefined) await this.set(name, { alias: options.alias });
      const link = await this.get(name);
      if (link === undefined)
        throw new NetlinkError({ code: "ENODEV", errno: 19, operation, object: name, reason: "it is gone again" });
      return link;
    } catch (error) {
      await absentWhen(["ENODEV"], () => this.delete(name));
      throw error;
    }
  }

  /**
   * Changes a link, in one message. The kernel applies the fields one after the other: when one is refused, those
   * before it stay changed.
   */
  async set(link: LinkRef, change: LinkChange): Promise<void> {
    const operation = "change link";
    const object = linkLabel(link);
    if (typeof link === "string") checkLinkName(operation, link);
    const attributes = await this.#attributes(operation, object, change);
    // A new name needs the old one's place in the message, so the link is then named by its index.
    const index = change.name === undefined && typeof link === "string" ? 0 : await resolveIndex(link, operation);
    const name = index === 0 && typeof link === "string" ? link : change.name;
    await this.#session.socket.change({
      operation,
      object,
      type: RTM_SETLINK,
      write: (writer) => writeLink(writer, index, { ...attributes, name }),
    });
  }

  /** Changes a bridge's own settings. */
  async setBridge(link: LinkRef, options: BridgeOptions): Promise<void> {
    const operation = "change bridge";
    const index = await resolveIndex(link, operation);
    await this.#session.socket.change({
      operation,
      object: linkLabel(link),
      type: RTM_NEWLINK,
      write: (writer) => {
        writeLink(writer, index, {});
        writeLinkInfo(writer, () => writeKind(writer, "bridge", () => writeBridgeOptions(writer, options)));
      },
    });
  }

  /** Changes a bridge's settings for one of its ports. */
  async setBridgePort(link: LinkRef, options: BridgePortOptions): Promise<void> {
    const operation = "change bridge port";
    const index = await resolveIndex(link, operation);
    await this.#session.socket.change({
      operation,
      object: linkLabel(link),
      type: RTM_SETLINK,
      write: (writer) => writeBridgePort(writer, index, options),
    });
  }

  /** Deletes a link. ENODEV when there is none. The kernel takes about 20 ms, off the event loop. */
  async delete(link: LinkRef): Promise<void> {
    const operation = "delete link";
    if (typeof link === "string") checkLinkName(operation, link);
    else checkNumber(operation, linkLabel(link), "an index", link, [1, MAX_INDEX]);
    await this.#session.slowSocket.change({
      operation,
      object: linkLabel(link),
      type: RTM_DELLINK,
      write: (writer) =>
        writeLink(writer, typeof link === "number" ? link : 0, { name: typeof link === "string" ? link : undefined }),
    });
  }

  /**
   * Deletes every link of a group in one request: about 0.5 ms each instead of 20 ms. It deletes *whatever* is in the group
   * when the kernel looks, whoever put it there: use a group made for the purpose, or `deleteMany`. Group 0, which holds
   * every link that was never put into one, is refused. ENODEV when the group is empty; EOPNOTSUPP, with nothing
   * deleted, when one of its links can't be (lo, hardware).
   */
  async deleteGroup(group: number): Promise<void> {
    const operation = "delete link group";
    checkNumber(operation, String(group), "a group to delete", group, [1, MAX_U32]);
    await this.#session.slowSocket.change({
      operation,
      object: String(group),
      type: RTM_DELLINK,
      write: (writer) => writeLink(writer, 0, { group }),
    });
  }

  /**
   * Deletes many links by a group made for this call, at about the cost of `deleteGroup`. Each is named by its index *and*
   * its name, and is left alone when they no longer belong together. Before the group is deleted, a dump must show
   * that it holds exactly these links: if anything else got in, they are deleted one by one. Links that are gone already
   * are no error. Returns how many there were to delete.
   */
  async deleteMany(links: readonly Pick<Link, "index" | "name">[]): Promise<number> {
    const operation = "delete links";
    for (const link of links) checkNumber(operation, link.name, "an index", link.index, [1, MAX_INDEX]);
    const listed = () => this.list({ stats: false, acceptInterrupted: true });
    const wanted = new Map(links.map((link) => [link.index, link.name]));
    const before = await listed();
    const present = before.filter((link) => wanted.get(link.index) === link.name);
    const seen = new Set(before.map((link) => link.index));
    for (const { index } of links.filter((link) => !seen.has(link.index))) {
      const link = await this.get(index);
      if (link !== undefined && wanted.get(index) === link.name) present.push(link);
    }
    if (present.length < 3) return this.#deleteEach(present);
    const used = new Set(before.map((link) => link.group));
    const group = unusedGroup(used);
    await Promise.all(present.map(({ index }) => absentWhen(["ENODEV"], () => this.set(index, { group }))));
    const members = (await listed()).filter((link) => link.group === group);
    if (members.some((link) => wanted.get(link.index) !== link.name)) {
      return this.#deleteEach(members.filter((link) => wanted.get(link.index) === link.name));
    }
    try {
      if (members.length > 0) await absentWhen(["ENODEV"], () => this.deleteGroup(group));
      return members.length;
    } catch (error) {
      if (!(error instanceof NetlinkError) || error.code !== "EOPNOTSUPP") throw error;
      return this.#deleteEach(members);
    }
  }

  async #deleteEach(links: readonly Link[]): Promise<number> {
    for (const { index } of links) await absentWhen(["ENODEV"], () => this.delete(index));
    return links.length;
  }

  async #attributes(
    operation: string,
    object: string,
    options: LinkChange & { readonly master?: LinkRef | null },
  ): Promise<LinkAttributes> {
    const { name, mac, mtu, alias, group, txQueueLength, master, up, carrier, addressGeneration } = options;
    if (name !== undefined) checkLinkName(operation, name);
    if (mac !== undefined) checkMac(operation, object, mac);
    if (mtu !== undefined) checkNumber(operation, object, "the mtu", mtu, [0, MAX_MTU]);
    if (alias !== undefined) checkAlias(operation, object, alias);
    if (group !== undefined) checkNumber(operation, object, "the group", group, [0, MAX_U32]);
    if (txQueueLength !== undefined) {
      checkNumber(operation, object, "the transmit queue length", txQueueLength, [0, MAX_U32]);
    }
    const masterIndex = master === null ? 0 : master;
    return {
      name,
      mac,
      mtu,
      alias,
      group,
      txQueueLength,
      up,
      carrier,
      addressGeneration,
      master: masterIndex === undefined ? undefined : await resolveIndex(masterIndex, operation, object),
    };
  }
}

/** What IFLA_LINKINFO holds for a kind, its arguments checked. */
async function kindWriter(operation: string, options: LinkCreate): Promise<(writer: MessageWriter) => void> {
  switch (options.kind) {
    case "bridge":
      return (writer) => writeKind(writer, "bridge", () => writeBridgeOptions(writer, options));
    case "veth": {
      const { peer } = options;
      checkLinkName(operation, peer.name);
      if (peer.mac !== undefined) checkMac(operation, peer.name, peer.mac);
      return (writer) =>
        writeKind(writer, "veth", () =>
          writer.attribute(VETH_INFO_PEER, () => writeLink(writer, 0, { name: peer.name, mac: peer.mac })),
        );
    }
    case "vxlan": {
      checkNumber(operation, options.name, "the vni", options.vni, [0, MAX_VNI]);
      if (options.port !== undefined) checkNumber(operation, options.name, "the port", options.port, [1, 65_535]);
      const families = [options.remote, options.local]
        .filter((ip) => ip !== undefined)
        .map((ip) => checkIp(operation, ip));
      if (new Set(families).size > 1)
        throw invalidArgument(operation, options.name, "remote and local differ in family");
      const { underlay, ...rest } = options;
      const index = underlay === undefined ? undefined : await resolveIndex(underlay, operation, options.name);
      const vxlan: VxlanOptions = index === undefined ? rest : { ...rest, underlay: index };
      return (writer) => writeKind(writer, "vxlan", () => writeVxlanOptions(writer, vxlan));
    }
    case "ifb":
      return (writer) => writeKind(writer, "ifb");
  }
}

function linkOf(message: NetlinkMessage, withCounters?: boolean): Link | undefined {
  return message.type === RTM_NEWLINK ? decodeLink(message.body, withCounters).link : undefined;
}

/** A random group that no link is in: two callers that do this at once hardly ever meet, and the dump notices. */
function unusedGroup(used: ReadonlySet<number>): number {
  for (;;) {
    const group = 1 + Math.floor(Math.random() * (MAX_INDEX - 1));
    if (!used.has(group)) return group;
  }
}

/** What `task` gives, or undefined when it fails with one of `codes`. */
async function absentWhen<Result>(codes: readonly string[], task: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await task();
  } catch (error) {
    if (error instanceof NetlinkError && codes.includes(error.code)) return undefined;
    throw error;
  }
}
