/**
 * What iptables' FORWARD chain does with guests' packets, by its rules in order and through the chains that it jumps to, as far as that is certain. What a rule asks
 * for besides links and addresses (a port, a state) is not known here, so such a rule is passed over. No I/O.
 */
import { blockHolds, blockOf, type Ipv4Block, parseCidr } from "../ipv4.ts";

/** Whose packets, and which way: guests send by the bridge's link, and get by it. */
export interface GuestPackets {
  readonly bridge: string;
  readonly block: Ipv4Block;
  readonly way: "from" | "to";
}

type Rules = ReadonlyMap<string, readonly string[]>;

/** iptables refuses chains that lead back to themselves (iptables(8)). */
const DEEPEST = 16;

/** Rules by chain, of what `iptables -S` prints. */
export function rulesByChain(text: string): Rules {
  const lines = text.split("\n").filter((line) => line.startsWith("-A "));
  return Map.groupBy(lines, (line) => line.split(" ", 2)[1] ?? "");
}

/** The rule that drops such packets before any accepts them; undefined where none certainly does. */
export function findDrop(rules: Rules, packets: GuestPackets): string | undefined {
  const fate = walk(rules, "FORWARD", packets, 0);
  return fate === "accepted" || fate === "handed back" ? undefined : fate.droppedBy;
}

type Fate = "accepted" | "handed back" | { readonly droppedBy: string };

function walk(rules: Rules, chain: string, packets: GuestPackets, depth: number): Fate {
  for (const rule of rules.get(chain) ?? []) {
    const { isSure, verb, target } = read(rule, packets);
    if (!isSure || target === undefined) continue;
    if (target === "ACCEPT") return "accepted";
    if (target === "DROP" || target === "REJECT") return { droppedBy: rule };
    if (target === "RETURN") return "handed back";
    if (depth >= DEEPEST || !rules.has(target)) continue;
    const fate = walk(rules, target, packets, depth + 1);
    // What is gone to and not called does not come back to this chain.
    if (fate !== "handed back" || verb === "-g") return fate;
  }
  return "handed back";
}

/** Whether all that a rule asks for is so of these packets, and what it does with them. */
function read(rule: string, packets: GuestPackets) {
  const words = [...rule.matchAll(/"(?:[^"\\]|\\.)*"|\S+/g)].map(([word]) => word).slice(2);
  let isSure = true;
  let [verb, target]: (string | undefined)[] = [];
  for (let at = 0; at < words.length;) {
    const isNot = words[at] === "!";
    const [option = "", value = ""] = words.slice(isNot ? at + 1 : at);
    at += isNot ? 3 : 2;
    if (option === "-j" || option === "-g") {
      [verb, target] = [option, value];
      // What follows is the target's own, such as the kind of a refusal.
      break;
    }
    if ((option === "-m" && value === "comment") || option === "--comment") continue;
    isSure &&= holds(option, value, packets) === !isNot;
  }
  return { isSure, verb, target };
}

/** Whether a match is so of all these packets (true) or of none (false); undefined where it may be of some. */
function holds(option: string, value: string, { bridge, block, way }: GuestPackets): boolean | undefined {
  const ownLink = way === "from" ? "-i" : "-o";
  const ownAddress = way === "from" ? "-s" : "-d";
  if (option === "-i" || option === "-o") {
    const isBridge = value.endsWith("+") ? bridge.startsWith(value.slice(0, -1)) : value === bridge;
    if (option === ownLink) return isBridge;
    // The other end may be any link but the bridge; of packets between guests this says nothing.
    return isBridge ? false : undefined;
  }
  if (option !== ownAddress) return undefined;
  const cidr = parseCidr(value);
  if (cidr === undefined) return undefined;
  const { address, prefixLength } = cidr;
  const isWider = prefixLength <= block.prefixLength && blockHolds(blockOf(address, prefixLength), block.first);
  return isWider ? true : undefined;
}
