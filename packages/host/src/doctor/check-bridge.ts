/** Checks of the set-up and its bridge. No I/O. */
import { blockOf, blocksOverlap, blockSize, formatBlock, parseCidr, parseIpv4 } from "../ipv4.ts";
import { furtherLinks, MAX_BRIDGE_PORTS, parseFurtherAlias, trunkPorts } from "../setup/further.ts";
import { shellWord } from "../setup/operation.ts";
import { findEffect } from "../setup/record.ts";
import type { SetupRecord } from "../setup/record.ts";
import { bridgeMac, DEFAULT_FIREWALL } from "../setup/settings.ts";
import { broken, ok, skipped, type Verdict, warning } from "./finding.ts";
import type { DoctorSettings, DoctorView, SeenLink } from "./view.ts";

/** From this share of its addresses on the subnet counts as nearly full. */
const NEARLY_FULL = 0.9;

const UNSEEN_NETWORK = "the host's links can't be listed";

/** The command that sets the host up as it is meant to be. */
export function setupCommand({ bridge, subnet, hostIp, workDir, firewall }: DoctorSettings): string {
  const other = firewall === DEFAULT_FIREWALL ? [] : ["--firewall", firewall];
  const flags = [...other, "--bridge", bridge, "--subnet", subnet, "--host-ip", hostIp, "--work-dir", workDir];
  return ["volar", "setup", ...flags].map(shellWord).join(" ");
}

function recordOf(view: DoctorView): SetupRecord | undefined {
  return view.record === undefined || "unreadable" in view.record ? undefined : view.record;
}

function bridgeOf({ network, settings }: DoctorView): SeenLink | undefined {
  const link = network?.links.find(({ name }) => name === settings.bridge);
  return link?.kind === "bridge" ? link : undefined;
}

/** The verdict where there is no bridge to look at. */
function withoutBridge(view: DoctorView): Verdict {
  return skipped(view.network === undefined ? UNSEEN_NETWORK : `there is no bridge ${view.settings.bridge} to look at`);
}

export function checkSetup(view: DoctorView): Verdict[] {
  const { settings, record, volantd } = view;
  if (record === undefined) {
    const sentence = `no set-up is recorded in ${settings.workDir}: what is removed from the host's network can't be put back`;
    return [warning(sentence, setupCommand(settings))];
  }
  if ("unreadable" in record) return [record.denied ? skipped(record.unreadable) : broken(record.unreadable)];
  if (record.state === "applying") {
    return [broken("a set-up is at work, or was ended in the middle", setupCommand(settings))];
  }
  if (record.state === "undoing") {
    const fix = ["volar", "setup", "--undo", "--work-dir", settings.workDir].map(shellWord).join(" ");
    return [broken("an undo is at work, or was ended in the middle", fix)];
  }
  const recorded = record.settings;
  const wanted = volantd.answers ? { ...settings, ...volantd } : settings;
  if (recorded.bridge !== wanted.bridge || recorded.subnet !== wanted.subnet) {
    const sentence =
      `the host is set up with bridge ${recorded.bridge} and subnet ${recorded.subnet}, ` +
      `and volantd is set to ${wanted.bridge} and ${wanted.subnet}`;
    const variables = `VOLANT_BRIDGE=${recorded.bridge} VOLANT_SUBNET=${recorded.subnet} VOLANT_HOST_IP=${recorded.hostIp}`;
    return [broken(sentence, `${variables} volantd`)];
  }
  return [ok(`the host is set up with bridge ${recorded.bridge} and subnet ${recorded.subnet}`)];
}

export function checkBridge(view: DoctorView): Verdict[] {
  const { network, settings } = view;
  if (network === undefined) return [skipped(UNSEEN_NETWORK)];
  const { bridge: name } = settings;
  const link = network.links.find((other) => other.name === name);
  if (link === undefined) return [broken(`the bridge ${name} is missing`, setupCommand(settings))];
  if (link.kind !== "bridge") {
    const fix = setupCommand({ ...settings, bridge: "<another name>" });
    return [broken(`the link ${name} is not a bridge`, fix)];
  }
  if (!link.up) return [broken(`the bridge ${name} is down`, `ip link set dev ${name} up`)];
  return [ok(`the bridge ${name} is up`)];
}

export function checkBridgeAddress(view: DoctorView): Verdict[] {
  const { network, settings } = view;
  if (network === undefined || bridgeOf(view) === undefined) return [withoutBridge(view)];
  const { bridge, hostIp } = settings;
  const wanted = `${hostIp}/${settings.block.prefixLength}`;
  const found = network.addresses.filter(({ link }) => link === bridge);
  if (found.some(({ address, prefixLength }) => `${address}/${prefixLength}` === wanted)) {
    return [ok(`the bridge ${bridge} has the address ${wanted}`)];
  }
  const others = found.map(({ address, prefixLength }) => `${address}/${prefixLength}`).join(", ");
  const has = others === "" ? "has no IPv4 address" : `has ${others}`;
  return [broken(`the bridge ${bridge} ${has}, and needs ${wanted}`, `ip address add ${wanted} dev ${bridge}`)];
}

export function checkBridgeMac(view: DoctorView): Verdict[] {
  const link = bridgeOf(view);
  if (link === undefined) return [withoutBridge(view)];
  const { bridge } = view.settings;
  const adopted = findEffect(recordOf(view), `adopted_bridge ${bridge}`);
  const wanted = adopted?.kind === "adopted_bridge" ? adopted.mac : bridgeMac(view.settings);
  if (link.mac === wanted) return [ok(`the bridge ${bridge} has its MAC, ${wanted}`)];
  const sentence = `the bridge ${bridge} has the MAC ${link.mac} instead of ${wanted}: restored guests look for their gateway there`;
  // A bridge that somebody made by hand has whatever MAC its maker chose.
  const judge = recordOf(view) === undefined ? warning : broken;
  return [judge(sentence, `ip link set dev ${bridge} address ${wanted}`)];
}

export function checkBridgePorts(view: DoctorView): Verdict[] {
  const bridge = bridgeOf(view);
  if (bridge === undefined || view.network === undefined) return [withoutBridge(view)];
  const { links } = view.network;
  const portsOf = (link: SeenLink) => links.filter(({ master }) => master === link.index).length;
  const further = furtherLinks(links, bridge.name);
  const ports = portsOf(bridge);
  const others = further.map((link) => `${link.name} ${portsOf(link)}`).join(", ");
  const and = others === "" ? "" : `, and its further bridges: ${others}`;
  const sentence = `the bridge ${bridge.name} has ${ports} of the ${MAX_BRIDGE_PORTS} ports that Linux allows${and}`;
  const cut = further.filter((link) => !isJoined(link, bridge, links));
  if (cut.length > 0) {
    const verdict = (name: string) =>
      broken(
        `the further bridge ${name} is not joined to ${bridge.name}: volantd joins it again`,
        "systemctl restart volantd",
      );
    return cut.map(({ name }) => verdict(name));
  }
  const trunks = furtherLinks(links, bridge.name, "trunk").filter(({ master }) => master === bridge.index).length;
  const most = trunkPorts(MAX_BRIDGE_PORTS);
  // What comes beyond joins further bridges, and each needs one port here.
  if (ports >= MAX_BRIDGE_PORTS && trunks < most) {
    return [broken(`${sentence}: none is left for one more further bridge, and once those are full no VM gets a tap`)];
  }
  if (further.length < most) return [ok(sentence)];
  return [warning(`${sentence}: there can be no more of them`)];
}

/** Whether a further bridge is up, and its trunk is up at both ends. */
function isJoined(link: SeenLink, bridge: SeenLink, links: readonly SeenLink[]): boolean {
  const number = parseFurtherAlias(link.alias)?.number;
  const ends = furtherLinks(links, bridge.name, "trunk").filter(
    ({ alias, up }) => up && parseFurtherAlias(alias)?.number === number,
  );
  return link.up && [link, bridge].every(({ index }) => ends.some(({ master }) => master === index));
}

export function checkMtu(view: DoctorView): Verdict[] {
  const bridge = bridgeOf(view);
  if (bridge === undefined || view.network === undefined) return [withoutBridge(view)];
  const { links, routes } = view.network;
  const out = new Set(
    routes.filter(({ destination, leads }) => leads && destination === "0.0.0.0/0").map(({ link }) => link),
  );
  const upstream = links.filter(({ name, up }) => up && name !== bridge.name && out.has(name));
  const narrowest = upstream.toSorted((a, b) => a.mtu - b.mtu)[0];
  if (narrowest === undefined) return [skipped("no default route leads out of this host")];
  if (narrowest.mtu >= bridge.mtu) {
    return [
      ok(
        `${narrowest.name}, which leads out, takes packets of ${narrowest.mtu} bytes, and ${bridge.name} sends ${bridge.mtu}`,
      ),
    ];
  }
  const sentence =
    `${narrowest.name}, which leads out, takes packets of ${narrowest.mtu} bytes, and ${bridge.name} sends ${bridge.mtu}: ` +
    "where path MTU discovery is blocked, connections of guests stall";
  return [warning(sentence, `ip link set dev ${bridge.name} mtu ${narrowest.mtu}`)];
}

export function checkRouteOverlap(view: DoctorView): Verdict[] {
  const { network, settings } = view;
  if (network === undefined) return [skipped(UNSEEN_NETWORK)];
  const { subnet, block, bridge } = settings;
  const fix = setupCommand({ ...settings, subnet: "<another subnet>", hostIp: "<an address in it>" });
  const verdicts: Verdict[] = [];
  const told = new Set<string>();
  const tell = (what: string, other: { first: number; prefixLength: number }, link: string): void => {
    if (!blocksOverlap(other, block)) return;
    const key = `${formatBlock(other)} ${link}`;
    if (told.has(key)) return;
    told.add(key);
    // The longer prefix wins; of two that are as long, nobody can tell.
    if (other.prefixLength >= block.prefixLength) {
      verdicts.push(broken(`${what} takes addresses of the managed subnet ${subnet} away from ${bridge}`, fix));
    } else {
      verdicts.push(warning(`the managed subnet ${subnet} hides a part of what ${what} leads to`, fix));
    }
  };
  for (const { link, address, prefixLength } of network.addresses) {
    const number = parseIpv4(address);
    if (link === bridge || number === undefined) continue;
    tell(`the address ${address}/${prefixLength} of ${link}`, blockOf(number, prefixLength), link);
  }
  for (const { destination, link, leads } of network.routes) {
    const cidr = parseCidr(destination);
    // Routes for half of all addresses or more are default routes in all but name: VPNs use two halves.
    if (link === bridge || !leads || cidr === undefined || cidr.prefixLength <= 1) continue;
    const by = link === undefined ? "" : ` by ${link}`;
    tell(`the route to ${destination}${by}`, blockOf(cidr.address, cidr.prefixLength), link ?? "");
  }
  return verdicts.length > 0 ? verdicts : [ok(`nothing else has addresses of ${subnet}`)];
}

export function checkSubnetPool({ settings, volantd }: DoctorView): Verdict[] {
  if (!volantd.answers) return [skipped(`volantd is not asked for its leases: ${volantd.reason}`)];
  const { subnet, block } = settings;
  // All but the network's, the broadcast and the host's address.
  const size = blockSize(block.prefixLength) - 3;
  const leased = volantd.leased.filter((text) => {
    const address = parseIpv4(text);
    return address !== undefined && blockOf(address, block.prefixLength).first === block.first;
  }).length;
  const sentence = `${leased} of the ${size} addresses of ${subnet} are leased`;
  if (leased >= size) return [broken(`${sentence}: no further VM gets one`)];
  return [leased >= size * NEARLY_FULL ? warning(sentence) : ok(sentence)];
}
