/**
 * The managed bridge's further bridges (docs/networking.md, "More than a thousand taps"): seen as they are, made before the first tap joins one, put right, and
 * removed once they are empty.
 *
 * What the host itself must not hear by them: an ARP request reaches the bridge's own link, too, and Linux answers for its addresses whatever link
 * it comes in by. So that link drops whatever it hears, and hosts and guests meet at the managed bridge alone.
 */
import { VolantError } from "@volant/contract";
import {
  furtherAlias,
  furtherMac,
  type FurtherMark,
  furtherNames,
  type FurtherPart,
  parseFurtherAlias,
} from "@volant/host";
import type { TapGuard } from "@volant/host/guest-policy";
import type { Link, Netlink, NetlinkError } from "@volant/netlink";

export interface FurtherBridgesOptions {
  readonly netlink: Netlink;
  readonly installation: string;
  /** The managed bridge. */
  readonly bridge: string;
  readonly guard: Pick<TapGuard, "deafen">;
  /** Has the firewall let frames of further bridges pass that are there: called when one has been made, and before anything joins it. */
  readonly allow: () => Promise<unknown>;
}

/** One of them, as it was seen. */
export interface SeenFurther {
  readonly number: number;
  readonly bridge: Link | undefined;
  /** Both ends of its trunk. */
  readonly near: Link | undefined;
  readonly far: Link | undefined;
  /** It is up, marked, and joined to the managed bridge by its trunk. */
  readonly whole: boolean;
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && error.name === "NetlinkError" ? (error as NetlinkError).code : undefined;
}

const KINDS: Readonly<Record<FurtherPart, string>> = { bridge: "bridge", near: "veth", far: "veth" };

export class FurtherBridges {
  readonly #options: FurtherBridgesOptions;
  #seen: ReadonlyMap<number, SeenFurther> = new Map();
  /** Names of all links that are none of these. */
  #otherNames: ReadonlySet<string> = new Set();
  /** Known to be whole by a look, or made since. */
  readonly #whole = new Set<number>();
  #tail: Promise<unknown> = Promise.resolve();

  constructor(options: FurtherBridgesOptions) {
    this.#options = options;
  }

  /** What there is of them among these links. `deaf`: indexes of the links that hear nothing. */
  observe(links: readonly Link[], deaf: ReadonlySet<number>): ReadonlyMap<number, SeenFurther> {
    const managed = links.find(({ name }) => name === this.#options.bridge);
    const parts = new Map<number, Partial<Record<FurtherPart, Link>>>();
    const otherNames = new Set<string>();
    this.#otherNames = otherNames;
    for (const link of links) {
      const own = this.#identify(link);
      if (own === undefined) otherNames.add(link.name);
      else parts.set(own.number, { ...parts.get(own.number), [own.part]: link });
    }
    this.#seen = new Map(
      [...parts].map(([number, { bridge, near, far }]) => {
        const whole =
          bridge !== undefined &&
          deaf.has(bridge.index) &&
          this.#isRight(bridge, number, "bridge") &&
          this.#isRight(near, number, "near", managed) &&
          this.#isRight(far, number, "far", bridge);
        return [number, { number, bridge, near, far, whole }];
      }),
    );
    for (const number of this.#whole) if (this.#seen.get(number)?.whole !== true) this.#whole.delete(number);
    for (const [number, { whole }] of this.#seen) if (whole) this.#whole.add(number);
    return this.#seen;
  }

  /** Whether a change that the kernel tells is one of what was seen: not that ports came or went. */
  isNews(link: Link, action: "set" | "delete"): boolean {
    for (const { bridge, near, far } of this.#seen.values()) {
      const known = [bridge, near, far].find((other) => other?.index === link.index);
      if (known === undefined) continue;
      return action === "delete" || link.flags.up !== known.flags.up || link.master !== known.master;
    }
    return false;
  }

  /** Whether one of that number's names is somebody else's, and none of its links is there. */
  isTaken(number: number): boolean {
    if (this.#seen.has(number)) return false;
    const names = furtherNames(this.#options.bridge, number);
    return Object.values(names).some((name) => this.#otherNames.has(name));
  }

  /**
   * The bridge's name, once it is there and joined to the managed one.
   *
   * @throws VolantError `exists` where a link of somebody else has one of its names; `not_ready` where the managed bridge has no port left, or the kernel
   *   lacks a part
   */
  async ensure(number: number): Promise<string> {
    // Asked again when it is its turn: taps that come together are not to make it one after the other.
    return (
      this.#wholeName(number) ?? (await this.#exclusive(async () => this.#wholeName(number) ?? this.#make(number)))
    );
  }

  #wholeName(number: number): string | undefined {
    return this.#whole.has(number) ? this.#seen.get(number)?.bridge?.name : undefined;
  }

  /** Puts right what is wrong with those that are there, and says what that was. */
  async repair(): Promise<string[]> {
    const { bridge } = this.#options;
    const broken = [...this.#seen.values()].filter((one) => !one.whole && one.bridge !== undefined);
    const repaired: string[] = [];
    for (const { number, bridge: seen } of broken) {
      await this.#exclusive(async () => {
        // It may have been removed, or put right, since it was looked at.
        if (this.#whole.has(number) || seen === undefined) return;
        if ((await this.#options.netlink.links.get(seen.index)) === undefined) return;
        const name = await this.#make(number);
        repaired.push(`further bridge ${name}, joined to ${bridge}`);
      });
    }
    return repaired;
  }

  /**
   * Removes a further bridge, unless something has joined it or is about to.
   *
   * @param isWanted asked last, when nothing can come between
   */
  remove(number: number, isWanted: () => boolean): Promise<void> {
    return this.#exclusive(async () => {
      const { links } = this.#options.netlink;
      const own = (await links.list({ stats: false, acceptInterrupted: true })).flatMap((link) => {
        const found = this.#identify(link);
        return found?.number === number ? [{ link, part: found.part }] : [];
      });
      const bridge = own.find(({ part }) => part === "bridge")?.link;
      const trunk = own.find(({ part }) => part !== "bridge")?.link;
      const ports = bridge === undefined ? [] : await links.list({ master: bridge.index, stats: false });
      if (isWanted() || ports.some((port) => this.#identify(port) === undefined)) return;
      this.#whole.delete(number);
      this.#seen = new Map([...this.#seen].filter(([other]) => other !== number));
      // The trunk's other end goes with the first.
      for (const link of [trunk, bridge]) {
        if (link === undefined) continue;
        try {
          await links.delete(link.index);
        } catch (error) {
          if (codeOf(error) !== "ENODEV") throw error;
        }
      }
    });
  }

  #mark(number: number): FurtherMark {
    const { installation, bridge } = this.#options;
    return { installation, bridge, number };
  }

  /** Which part of which further bridge of ours a link is, by its mark; or by name and MAC, where volantd ended before it was marked. */
  #identify(link: Link): { readonly number: number; readonly part: FurtherPart } | undefined {
    const { installation, bridge } = this.#options;
    const mark = parseFurtherAlias(link.alias);
    const number = mark === undefined && (link.alias ?? "") === "" ? numberOf(link.name) : mark?.number;
    if (number === undefined) return undefined;
    if (mark !== undefined && (mark.installation !== installation || mark.bridge !== bridge)) return undefined;
    const names = furtherNames(bridge, number);
    for (const part of ["bridge", "near", "far"] as const) {
      if (link.kind !== KINDS[part]) continue;
      if (link.mac === furtherMac(this.#mark(number), part)) return { number, part };
      if (mark !== undefined && link.name === names[part]) return { number, part };
    }
    return undefined;
  }

  #isRight(link: Link | undefined, number: number, part: FurtherPart, master?: Link): boolean {
    if (link === undefined || !link.flags.up || link.alias !== furtherAlias(this.#mark(number), part)) return false;
    return part === "bridge" || (master !== undefined && link.master === master.index);
  }

  /** Every step can be repeated. Nothing passes before the last: a trunk that is up leads to a bridge that is deaf, and that the firewall lets pass. */
  async #make(number: number): Promise<string> {
    const { netlink, guard, allow } = this.#options;
    const { links } = netlink;
    const bridge = await this.#part(number, "bridge");
    await links.set(bridge.index, { addressGeneration: "none" });
    await guard.deafen(bridge.index);
    await allow();
    const near = await this.#part(number, "near");
    const far = await this.#part(number, "far");
    try {
      await links.set(near.index, { master: this.#options.bridge, addressGeneration: "none" });
    } catch (error) {
      if (codeOf(error) !== "EXFULL") throw error;
      const message = `the bridge ${this.#options.bridge} has no port left for a further bridge's trunk`;
      throw new VolantError("not_ready", message, { hint: "stop a VM or take another port off it", cause: error });
    }
    await links.set(far.index, { master: bridge.index, addressGeneration: "none" });
    await links.set(bridge.index, { up: true });
    await links.set(far.index, { up: true });
    await links.set(near.index, { up: true });
    this.#whole.add(number);
    this.#seen = new Map(this.#seen).set(number, { number, bridge, near, far, whole: true });
    return bridge.name;
  }

  /** One of its links, which is made where it is missing, and marked. Making one end of a trunk makes the other. */
  async #part(number: number, part: FurtherPart): Promise<Link> {
    const { links } = this.#options.netlink;
    const mark = this.#mark(number);
    const names = furtherNames(mark.bridge, number);
    const all = await links.list({ stats: false, acceptInterrupted: true });
    const own = all.find((link) => {
      const found = this.#identify(link);
      return found?.number === number && found.part === part;
    });
    const alias = furtherAlias(mark, part);
    if (own !== undefined) {
      if (own.alias !== alias) await links.set(own.index, { alias });
      return own;
    }
    const mac = furtherMac(mark, part);
    try {
      if (part === "bridge") return await links.create({ name: names.bridge, kind: "bridge", mac, alias });
      const other = part === "near" ? "far" : "near";
      const peer = { name: names[other], mac: furtherMac(mark, other) };
      return await links.create({ name: names[part], kind: "veth", mac, alias, peer });
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
      const message = `a link named ${names[part]} exists that is not Volant's: it is left alone`;
      throw new VolantError("exists", message, { hint: `ip link delete ${names[part]}`, cause: error });
    }
  }

  #exclusive<Result>(task: () => Promise<Result>): Promise<Result> {
    const run = this.#tail.then(task);
    this.#tail = run.catch(() => undefined);
    return run;
  }
}

/** The number in the name of one of their links. */
function numberOf(name: string): number | undefined {
  const match = /-([1-9]\d?)[nf]?$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}
