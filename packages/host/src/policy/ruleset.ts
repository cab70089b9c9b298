/**
 * The rules that every guest's frames meet: constant text, the same for one VM and for a thousand. What differs from VM
 * to VM lies in sets and maps keyed by the tap's name (see elements.ts). No I/O.
 *
 * **One table for all installations of a network namespace.** A frame that any table drops is dropped, so a table per
 * installation that holds every `vttap-*` would cut off the other installation's VMs, and one that holds only its own would
 * let a tap without an entry pass. So the table is shared, and its elements carry the mark of whose they are.
 *
 * **Which links.** All that are called `vttap-*`, with an entry or without. A tap whose name a user chose is held from its entry on, by the
 * set `named`; the entry is there before the tap is.
 *
 * **Where the rules sit.** br_handle_frame() (net/bridge/br_input.c) runs the bridge family's prerouting hook before
 * br_handle_frame_finish() learns the sender's address. Frames to 01:80:c2:00:00:0x never meet that hook: they meet `input`, and
 * the bridge learns from them after it. So there are two base chains. LLDP frames, and BPDUs where spanning tree is on, meet no hook
 * at all before the bridge learns: the filters at the tap itself take those (see tap-guard.ts).
 */

/** Every object of ours is in this table of the bridge family. */
export const TABLE = "volant";
/** NFPROTO_BRIDGE (include/uapi/linux/netfilter.h). */
const BRIDGE_FAMILY = 7;

/** Whether a table of nftables, as the kernel numbers families, is that one. */
export function isGuestTable({ family, name }: { readonly family: number; readonly name: string }): boolean {
  return family === BRIDGE_FAMILY && name === TABLE;
}

/** Raise this whenever the text below changes: a table whose rules carry another version gets its rules replaced. */
export const RULES_VERSION = 1;

/** Frames from taps that have no entry. */
export const NO_ENTRY_COUNTER = "no_entry";

/** Before everything that others hook in: the bridge family's own earliest is dstnat at -300 (nft(8)). */
const PRIORITY = -350;

/** RFC 826 over Ethernet for IPv4: nothing else has a sender that a lease can vouch for. */
const ETHERNET_ARP = "arp htype 1 arp ptype 0x0800 arp hlen 6 arp plen 4";
const SENDER_HAS_LEASE = "iifname . ether saddr . ip saddr @leases";
/** The group of addresses that IEEE 802.1D keeps for bridges themselves: BPDUs, LLDP, LACP, 802.1X, pause frames. */
const TO_BRIDGES = "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00";

interface Chain {
  readonly name: string;
  /** The hook that feeds it; absent where only other chains do. */
  readonly hook?: string;
  readonly rules: readonly string[];
}

const CHAINS: readonly Chain[] = [
  {
    // A map without the tap in it ends the first rule, so the second counts what comes from taps that have no entry.
    name: "refused",
    rules: ["counter name iifname map @dropped drop", `counter name "${NO_ENTRY_COUNTER}" drop`],
  },
  {
    name: "to_bridges",
    // Only the operator's word lets a guest speak to bridges.
    rules: ["iifname @unguarded accept", "goto refused"],
  },
  {
    name: "arp_frames",
    rules: [
      `${ETHERNET_ARP} arp operation 1-2 iifname . arp saddr ether . arp saddr ip @leases accept`,
      // A probe (RFC 5227) asks whether someone has the address that the guest is about to take.
      `${ETHERNET_ARP} arp operation 1 arp saddr ip 0.0.0.0 iifname . arp saddr ether . arp daddr ip @leases accept`,
      "goto refused",
    ],
  },
  {
    name: "udp_packets",
    rules: [
      // Fragments after the first have no ports; without the first, nobody can put them together.
      `@nh,48,16 & 0x1fff != 0 ${SENDER_HAS_LEASE} accept`,
      // DHCP in either direction (RFC 2131, 4.1): servers' answers never, whatever port they come from, because some clients look at the
      // destination only; clients' questions only by dhcp_client.
      "udp dport 67-68 goto refused",
      `udp length >= 8 ${SENDER_HAS_LEASE} accept`,
      "goto refused",
    ],
  },
  {
    name: "ipv4_packets",
    rules: [
      // In a packet of another version, or whose lengths contradict each other, the kernel finds no protocol
      // (nft_set_pktinfo_ipv4_validate), so neither of these two matches.
      "meta l4proto 17 goto udp_packets",
      `meta l4proto != 17 ${SENDER_HAS_LEASE} accept`,
      "goto refused",
    ],
  },
  {
    name: "bridged_guest",
    rules: [
      // `meta protocol` looks past a VLAN tag; these two bytes of the frame do not.
      "@ll,96,16 0x0800 goto ipv4_packets",
      "@ll,96,16 0x0806 goto arp_frames",
      "goto refused",
    ],
  },
  {
    name: "dhcp_sender",
    rules: ["ip saddr 0.0.0.0 ip daddr 255.255.255.255 accept", `${SENDER_HAS_LEASE} accept`, "goto refused"],
  },
  {
    name: "dhcp_client",
    rules: [
      // RFC 2131, figure 1: op, htype and hlen of a client on Ethernet, no relay (giaddr), and its own hardware address
      // (chaddr). All of it asks for what must be there: a message cut short matches nothing.
      "@th,64,24 0x010106 @th,256,32 0 iifname . @th,288,48 @dhcp_hardware goto dhcp_sender",
      "goto refused",
    ],
  },
  {
    name: "dhcp_guest",
    rules: [
      "@ll,96,16 0x0800 @nh,48,16 & 0x3fff == 0 udp sport 68 udp dport 67 goto dhcp_client",
      "goto bridged_guest",
    ],
  },
  {
    name: "guard",
    rules: [
      `${TO_BRIDGES} goto to_bridges`,
      "iifname . ether saddr vmap @guests",
      "iifname @unguarded accept",
      "goto refused",
    ],
  },
  { name: "from_port", hook: "prerouting", rules: ['iifname "vttap-*" goto guard', "iifname @named goto guard"] },
  {
    name: "to_host",
    hook: "input",
    rules: [`${TO_BRIDGES} iifname "vttap-*" goto to_bridges`, `${TO_BRIDGES} iifname @named goto to_bridges`],
  },
];

function ruleComment(index: number): string {
  return `volant rules ${RULES_VERSION} #${index + 1}`;
}

function chainText({ name, hook, rules }: Chain): string {
  const head = hook === undefined ? [] : [`type filter hook ${hook} priority ${PRIORITY}; policy accept;`];
  const lines = [...head, ...rules.map((rule, index) => `${rule} comment "${ruleComment(index)}"`)];
  return `\tchain ${name} {\n${lines.map((line) => `\t\t${line}\n`).join("")}\t}\n`;
}

/**
 * The whole table as input to `nft -f -`: one transaction that makes it, or replaces its rules and keeps its elements. It is nft's own
 * language and not JSON, because JSON can't declare a set whose key is bytes of a packet (`typeof`).
 */
export function rulesetText(): string {
  return `add table bridge ${TABLE}
flush table bridge ${TABLE}
table bridge ${TABLE} {
	counter ${NO_ENTRY_COUNTER} { }
	map dropped { type ifname : counter; }
	map guests { type ifname . ether_addr : verdict; }
	set unguarded { type ifname; }
	set named { type ifname; }
	set leases { type ifname . ether_addr . ipv4_addr; }
	set dhcp_hardware { typeof iifname . @th,288,48; }
${CHAINS.map(chainText).join("")}}
`;
}

/** The comments that each chain's rules bear, in their order: how an observed table is known to be complete. */
export function expectedRules(): ReadonlyMap<string, readonly string[]> {
  return new Map(CHAINS.map(({ name, rules }) => [name, rules.map((_, index) => ruleComment(index))]));
}
