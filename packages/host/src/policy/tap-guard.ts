/**
 * What a guest's frames go through before a bridge sees them: filters at the tap, and a link that makes them what they will be.
 *
 * **Why a link.** A virtio-net header (virtio 1.2, 5.1.6.2) may say that a checksum is still to be filled in, and where. The kernel then
 * writes two bytes of the guest's choosing at a place of the guest's choosing, when the frame leaves by a link that can't do it
 * itself: after every rule has looked. So a frame is sent through an ifb link whose checksum offload is off: the kernel fills the
 * checksum in, and cuts large segments into frames, before that link puts them back where they came from. What the rules
 * see is then what everybody else gets to see. It holds whatever the hypervisor does, as it happens in the kernel.
 *
 * **Why not all of them.** What an honest guest asks for changes nothing that rules look at, and cutting its large segments so early costs it half of
 * its speed. So a program looks at what was asked for, and lets pass what is sound (see sound-checksums.ts). It only ever
 * spares frames the link: where a kernel does not take it, all go by the link.
 *
 * **Why filters.** LLDP frames, and BPDUs where spanning tree is on, teach a bridge before any hook (br_handle_frame()): the first filter
 * drops whatever is for bridges themselves. No setting of the bridge is needed, so somebody else's bridge is protected, too.
 *
 * Link and filters are shared by all taps of the network namespace, whoever's they are, through one block of traffic control. They are kernel
 * state and hold without this process.
 */
import { availableParallelism } from "node:os";
import { VolantError } from "@volant/contract";
import {
  type BlockFilter,
  type BpfInstruction,
  hasChecksumOffload,
  type Link,
  type LoadedProgram,
  type Netlink,
  NetlinkError,
  type NewBlockFilter,
  setChecksumOffload,
} from "@volant/netlink";
import { type FastPath, openFastPath } from "./fast-path.ts";

/** The link's name and mark. It belongs to no installation: like the table of rules, all of them share it. */
export const GUARD_LINK = "volant-guard";
export const GUARD_ALIAS = "volant:guard";
/** The block's number, "vola" in ASCII: one that nobody takes by counting from 1. */
const BLOCK = 0x766f_6c61;
/** Frames that may wait where guests send faster than the host takes. */
const QUEUE_FRAMES = 1000;
const MOST_QUEUES = 16;

const LOAD_WORD = 0x20;
const LOAD_HALF = 0x28;
const AND = 0x54;
const JUMP_EQUAL = 0x15;
const RETURN = 0x06;
/** TC_ACT_SHOT; and TC_ACT_UNSPEC, which is also "matches" where the result is no verdict. */
const DROP = 2;
const NEXT = 0xffff_ffff;

/** Drops what is for 01:80:c2:00:00:0x, the addresses of bridges themselves (IEEE 802.1D, 7.12.6). */
const TO_BRIDGES: readonly BpfInstruction[] = [
  [LOAD_WORD, 0, 0, 0],
  [JUMP_EQUAL, 0, 4, 0x0180_c200],
  [LOAD_HALF, 0, 0, 4],
  [AND, 0, 0, 0xfff0],
  [JUMP_EQUAL, 0, 1, 0],
  [RETURN, 0, 0, DROP],
  [RETURN, 0, 0, NEXT],
];
const EVERYTHING: readonly BpfInstruction[] = [[RETURN, 0, 0, NEXT]];

/** The block of links that hear nothing: "volb" in ASCII. */
const DEAF_BLOCK = 0x766f_6c62;
const DEAF_FILTERS: readonly BlockFilter[] = [{ priority: 1, program: [[RETURN, 0, 0, DROP]] }];

/** In the order in which a frame meets them. */
const PRIORITY = { toBridges: 1, sound: 2, others: 3 } as const;

/** What must be in the block. */
function expectedFilters(guard: number, fastPath: FastPath | undefined): BlockFilter[] {
  return [
    { priority: PRIORITY.toBridges, program: TO_BRIDGES },
    ...(fastPath === undefined ? [] : [{ priority: PRIORITY.sound, program: [], tag: fastPath.tag }]),
    { priority: PRIORITY.others, program: EVERYTHING, redirect: guard },
  ];
}

/** The guard as it is. */
export interface ObservedGuard {
  /** Link and filters are as they must be. */
  readonly whole: boolean;
  /** Indexes of the links whose frames go through the filters. */
  readonly bound: ReadonlySet<number>;
  /** Indexes of the links that hear nothing; see {@link TapGuard.deafen}. */
  readonly deaf: ReadonlySet<number>;
}

/** Whether frames may be spared the link, or why the kernel does not let them be. */
type Sparing = { readonly fastPath: FastPath } | { readonly refused: VolantError };

/** A tap that waits to be bound. */
interface Binding {
  readonly tap: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class TapGuard {
  readonly #netlink: Netlink;
  readonly #open: () => Promise<FastPath>;
  #sparing: Promise<Sparing> | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  /** Taps that will be bound together when it is their turn; more may join until then. */
  #binding: Binding[] | undefined;

  /** @param open finds out what the kernel takes: at first use, and once */
  constructor(netlink: Netlink, open = openFastPath) {
    this.#netlink = netlink;
    this.#open = open;
  }

  async observe(): Promise<ObservedGuard> {
    const { links, traffic } = this.#netlink;
    const blocks = await traffic.ingressBlocks();
    const bound = linksOf(blocks, BLOCK);
    const deafBound = linksOf(blocks, DEAF_BLOCK);
    const isDeaf = deafBound.size > 0 && sameFilters(await traffic.filters(DEAF_BLOCK), DEAF_FILTERS);
    const deaf = isDeaf ? deafBound : new Set<number>();
    if (bound.size === 0) return { whole: false, bound, deaf };
    const link = await links.get(GUARD_LINK);
    if (link === undefined || !(await isRight(link))) return { whole: false, bound, deaf };
    const whole = sameFilters(await traffic.filters(BLOCK), expectedFilters(link.index, await this.#fastPath()));
    return { whole, bound, deaf };
  }

  /** Why all frames go by the link, the sound ones, too; undefined where those are spared it. */
  async slowReason(): Promise<VolantError | undefined> {
    const sparing = await this.#spare();
    return "refused" in sparing ? sparing.refused : undefined;
  }

  /**
   * Makes a tap's frames go through the guard, which is made, or put right, first. Call it before the tap is joined to a bridge.
   *
   * @throws VolantError `exists` when a link has the guard's name and is not Volant's, or the tap has filters of somebody else's;
   *   `not_ready` when the kernel lacks a part
   */
  bind(tap: number): Promise<void> {
    const binding = this.#binding ?? this.#bindTogether();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    binding.push({ tap, resolve, reject });
    return promise;
  }

  /** Taps that come while something else is under way share one look at what they are bound to; what comes between them ends that. */
  #bindTogether(): Binding[] {
    const bindings: Binding[] = [];
    const run = this.#exclusive(async () => {
      if (this.#binding === bindings) this.#binding = undefined;
      const guard = await this.#ensureLink();
      const outcomes = await Promise.allSettled(bindings.map(({ tap }) => this.#bindIngress(tap)));
      await this.#ensureFilters(guard);
      for (const [index, outcome] of outcomes.entries()) {
        if (outcome.status === "fulfilled") bindings[index]?.resolve();
        else bindings[index]?.reject(lackingPart(outcome.reason));
      }
    });
    run.catch((error: unknown) => {
      for (const { reject } of bindings) reject(lackingPart(error));
    });
    this.#binding = bindings;
    return bindings;
  }

  /** Takes a tap out again: its frames go straight to its bridge. */
  unbind(tap: number): Promise<void> {
    return this.#exclusive(async () => {
      if (await this.#isBound(tap)) await this.#netlink.traffic.unbindIngress(tap);
    });
  }

  /**
   * Has a link drop whatever it hears, so that the host itself is not reached by it. For a bridge's own link: what passes from port to port is
   * not heard by that.
   *
   * @throws VolantError as {@link bind} does
   */
  deafen(link: number): Promise<void> {
    return this.#exclusive(async () => {
      const { traffic } = this.#netlink;
      try {
        await this.#bindIngress(link, DEAF_BLOCK);
        const found = await traffic.filters(DEAF_BLOCK);
        if (sameFilters(found, DEAF_FILTERS)) return;
        if (found.length > 0) await traffic.clearFilters(DEAF_BLOCK);
        for (const filter of DEAF_FILTERS) await this.#addFilter(filter, DEAF_BLOCK);
      } catch (error) {
        throw lackingPart(error);
      }
    });
  }

  /** Removes the link, unless a tap of any installation is bound. */
  release(): Promise<void> {
    return this.#exclusive(async () => {
      const bound = await this.#bound();
      const link = await this.#netlink.links.get(GUARD_LINK);
      if (bound.size > 0 || link === undefined || !isOurs(link)) return;
      await this.#netlink.links.delete(link.index);
    });
  }

  async #bindIngress(link: number, block = BLOCK): Promise<void> {
    try {
      await this.#netlink.traffic.bindIngress(link, block);
    } catch (error) {
      if (!(error instanceof NetlinkError) || error.code !== "EEXIST" || !(await this.#isBound(link, block)))
        throw error;
    }
  }

  async #bound(): Promise<ReadonlySet<number>> {
    return linksOf(await this.#netlink.traffic.ingressBlocks(), BLOCK);
  }

  async #ensureFilters(guard: number): Promise<void> {
    const { traffic } = this.#netlink;
    const found = await traffic.filters(BLOCK);
    const fastPath = await this.#fastPath();
    if (sameFilters(found, expectedFilters(guard, fastPath))) return;
    if (found.length > 0) await traffic.clearFilters(BLOCK);
    await this.#addFilter({ priority: PRIORITY.others, program: EVERYTHING, redirect: guard });
    await this.#addFilter({ priority: PRIORITY.toBridges, program: TO_BRIDGES });
    if (fastPath !== undefined) {
      using loaded: LoadedProgram = fastPath.load();
      await this.#addFilter({ priority: PRIORITY.sound, loaded });
    }
    if (!sameFilters(await traffic.filters(BLOCK), expectedFilters(guard, fastPath))) throw notAsMade();
  }

  async #addFilter(filter: NewBlockFilter, block = BLOCK): Promise<void> {
    try {
      await this.#netlink.traffic.addFilter(block, filter);
    } catch (error) {
      // Another installation was at it, too, and adds the same.
      if (!(error instanceof NetlinkError) || error.code !== "EEXIST") throw error;
    }
  }

  #spare(): Promise<Sparing> {
    this.#sparing ??= this.#open().then(
      (fastPath) => ({ fastPath }),
      (refused: unknown) => {
        if (refused instanceof VolantError && refused.code === "not_ready") return { refused };
        throw refused;
      },
    );
    return this.#sparing;
  }

  async #fastPath(): Promise<FastPath | undefined> {
    const sparing = await this.#spare();
    return "fastPath" in sparing ? sparing.fastPath : undefined;
  }

  async #isBound(link: number, block = BLOCK): Promise<boolean> {
    const blocks = await this.#netlink.traffic.ingressBlocks();
    if (!blocks.has(link)) return false;
    if (blocks.get(link) === block) return true;
    throw new VolantError("exists", `link #${link} has filters at its ingress that are not Volant's`);
  }

  /** The link's index, once it is there, up, and fills checksums in. */
  async #ensureLink(): Promise<number> {
    const { links } = this.#netlink;
    const link = (await links.get(GUARD_LINK)) ?? (await this.#createLink());
    if (!isOurs(link)) {
      throw new VolantError("exists", `a link named ${GUARD_LINK} exists that is not Volant's: it is left alone`, {
        hint: `ip link delete ${GUARD_LINK}`,
      });
    }
    if (await isRight(link)) return link.index;
    if (await hasChecksumOffload(GUARD_LINK)) await setChecksumOffload(GUARD_LINK, false);
    // No IPv6 address of the host's on it.
    await links.set(link.index, { alias: GUARD_ALIAS, up: true, addressGeneration: "none" });
    const made = await links.get(link.index);
    if (made === undefined || !(await isRight(made))) throw notAsMade();
    return link.index;
  }

  async #createLink(): Promise<Link> {
    const { links } = this.#netlink;
    const queues = Math.min(availableParallelism(), MOST_QUEUES);
    try {
      return await links.create({
        name: GUARD_LINK,
        kind: "ifb",
        queues,
        alias: GUARD_ALIAS,
        txQueueLength: QUEUE_FRAMES,
      });
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      const link = error.code === "EEXIST" ? await links.get(GUARD_LINK) : undefined;
      if (link !== undefined) return link;
      const message = `the link ${GUARD_LINK}, which guests' frames must go through, can't be made: ${error.message}`;
      throw new VolantError("not_ready", message, { hint: "modprobe ifb", cause: error });
    }
  }

  #exclusive<Result>(task: () => Promise<Result>): Promise<Result> {
    this.#binding = undefined;
    const run = this.#tail.then(task);
    this.#tail = run.catch(() => undefined);
    return run;
  }
}

function linksOf(blocks: ReadonlyMap<number, number | undefined>, wanted: number): ReadonlySet<number> {
  return new Set([...blocks].flatMap(([link, block]) => (block === wanted ? [link] : [])));
}

/** Whoever asked looks again, and would ask again: without end, if asking changed nothing. */
function notAsMade(): VolantError {
  return new VolantError("not_ready", `what guests' frames must go through (${GUARD_LINK}) is not as it was just made`);
}

/** The kernel's ENOENT and EOPNOTSUPP are a classifier, an action or a queueing discipline that it does not have. */
function lackingPart(error: unknown): unknown {
  if (!(error instanceof NetlinkError) || !["ENOENT", "EOPNOTSUPP"].includes(error.code)) return error;
  const message = `the kernel lacks a part of what guests' frames must go through: ${error.message}`;
  return new VolantError("not_ready", message, {
    hint: "modprobe -a sch_ingress cls_bpf act_mirred ifb",
    cause: error,
  });
}

/** Ours, or made by us and not marked yet. */
function isOurs({ kind, alias }: Link): boolean {
  return kind === "ifb" && (alias === GUARD_ALIAS || (alias ?? "") === "");
}

async function isRight(link: Link): Promise<boolean> {
  return isOurs(link) && link.alias === GUARD_ALIAS && link.flags.up && !(await hasChecksumOffload(link.name));
}

function sameFilters(found: readonly BlockFilter[], expected: readonly BlockFilter[]): boolean {
  const text = (list: readonly BlockFilter[]) =>
    JSON.stringify(
      list
        .toSorted((a, b) => a.priority - b.priority)
        .map(({ priority, program, redirect, tag }) => [priority, program, redirect ?? 0, tag ?? ""]),
    );
  return text(found) === text(expected);
}
