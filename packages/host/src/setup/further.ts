/**
 * Further bridges: a Linux bridge has at most 1,023 ports, so taps beyond that join other bridges, each joined to the managed one by a pair of
 * veth links, its trunk. volantd makes them when they are needed; here is how they are called and marked, for whoever meets them. No I/O.
 *
 * It is a star: each further bridge has one trunk, the trunk's names follow from the bridge's, and so there can't be a second way, and no loop.
 */
import { createHash } from "node:crypto";
import type { FirewallRule } from "./operation.ts";
import type { NftRule } from "./nft-table.ts";
import { ruleComment } from "./settings.ts";

/** BR_MAX_PORTS (net/bridge/br_private.h) is 1 << 10, and port number 0 is not used. */
export const MAX_BRIDGE_PORTS = 1023;

/** Ports of the managed bridge that are kept for trunks where a bridge has so many. */
export function trunkPorts(bridgePorts: number): number {
  return Math.max(2, Math.floor(bridgePorts / 16));
}

/** A link's name holds 15 bytes (IFNAMSIZ); a number of two digits, a dash and a letter come after this. */
const MAX_STEM_BYTES = 11;
/** Further bridges are numbered from 1 to this. */
export const MAX_FURTHER_NUMBER = 99;

/** Whose link it is, and of which managed bridge. */
export interface FurtherMark {
  /** Hexadecimal id of the installation. */
  readonly installation: string;
  /** The managed bridge. */
  readonly bridge: string;
  readonly number: number;
}

/** `near` is the trunk's end at the managed bridge, `far` the other. */
export type FurtherPart = "bridge" | "near" | "far";

function stem(bridge: string): string {
  if (Buffer.byteLength(bridge) <= MAX_STEM_BYTES) return bridge;
  // Names are of ASCII letters where set-up had a say, and whole characters anyhow.
  const head = Buffer.from(bridge)
    .subarray(0, 4)
    .toString("latin1")
    .replaceAll(/[^\w.-]/g, "_");
  return `${head}-${createHash("sha256")
    .update(bridge)
    .digest("hex")
    .slice(0, MAX_STEM_BYTES - 5)}`;
}

/** Names of the links of a further bridge: `vbr0-1`, and its trunk's ends `vbr0-1n` and `vbr0-1f`. */
export function furtherNames(bridge: string, number: number): Readonly<Record<FurtherPart, string>> {
  const name = `${stem(bridge)}-${number}`;
  return { bridge: name, near: `${name}n`, far: `${name}f` };
}

/** The alias of a further bridge, or of both ends of its trunk. */
export function furtherAlias({ installation, bridge, number }: FurtherMark, part: FurtherPart): string {
  return `volant:${part === "bridge" ? "further" : "trunk"}:${installation}:${number}:${bridge}`;
}

/** What an alias says of a link; undefined where it is no further bridge's nor trunk's. */
export function parseFurtherAlias(
  alias: string | undefined,
): (FurtherMark & { readonly kind: "further" | "trunk" }) | undefined {
  const match = /^volant:(further|trunk):([0-9a-f]+):([1-9]\d?):(.+)$/.exec(alias ?? "");
  if (match === null) return undefined;
  const [, kind, installation = "", number, bridge = ""] = match;
  return { kind: kind === "trunk" ? "trunk" : "further", installation, number: Number(number), bridge };
}

/** The MAC of one of its links, always the same, so that one that is not marked yet is known as ours. `06:` as the managed bridge has it. */
export function furtherMac({ installation, bridge, number }: FurtherMark, part: FurtherPart): string {
  const digest = createHash("sha256").update(`volant ${part}\0${installation}\0${bridge}\0${number}`).digest();
  return ["06", ...[...digest.subarray(0, 5)].map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

/** As much of a link as tells further bridges from others. */
interface MarkedLink {
  readonly name: string;
  readonly kind?: string | undefined;
  readonly alias?: string | undefined;
}

/** The links of that managed bridge's further bridges, whichever installation made them, by number: the bridges, or the ends of their trunks. */
export function furtherLinks<L extends MarkedLink>(
  links: readonly L[],
  bridge: string,
  kind: "further" | "trunk" = "further",
): L[] {
  const numberOf = (link: L) => parseFurtherAlias(link.alias)?.number ?? 0;
  return links
    .filter((link) => {
      const mark = parseFurtherAlias(link.alias);
      return mark?.kind === kind && mark.bridge === bridge && link.kind === (kind === "trunk" ? "veth" : "bridge");
    })
    .toSorted((a, b) => numberOf(a) - numberOf(b));
}

/**
 * Rules for frames on further bridges, which pass the IPv4 firewall where br_netfilter is on, before they pass it once more on the managed bridge.
 * They are let pass, and not tracked: a connection's address is translated where its first packet is tracked first, and on a further bridge nothing is known
 * yet of where it will leave the host.
 */
export function furtherRules(bridge: string, names: readonly string[]): FirewallRule[] {
  const mark = ["-m", "comment", "--comment", ruleComment(bridge)];
  return names.flatMap((name): FirewallRule[] => [
    { table: "raw", chain: "PREROUTING", match: ["-i", name, ...mark, "-j", "CT", "--notrack"] },
    { table: "filter", chain: "FORWARD", match: ["-i", name, "-o", name, ...mark, "-j", "ACCEPT"] },
  ]);
}

function isLink(key: "iifname" | "oifname", link: string): unknown {
  return { match: { op: "==", left: { meta: { key } }, right: link } };
}

/** The same for nftables' table. */
export function furtherTableRules(names: readonly string[]): NftRule[] {
  return names.flatMap((name): NftRule[] => [
    {
      chain: "prerouting",
      text: `iifname "${name}" notrack`,
      expression: [isLink("iifname", name), { notrack: null }],
    },
    {
      chain: "forward",
      text: `iifname "${name}" oifname "${name}" accept`,
      expression: [isLink("iifname", name), isLink("oifname", name), { accept: null }],
    },
  ]);
}
