/** What set-up is asked for: checked once here, so that everything after it works with values that are right. No I/O. */
import { createHash } from "node:crypto";
import { isAbsolute } from "node:path";
import { VolantError } from "@volant/contract";
import {
  blockHolds,
  blockOf,
  blocksOverlap,
  formatBlock,
  formatIpv4,
  lastAddress,
  parseCidr,
  parseIpv4,
} from "../ipv4.ts";
import type { Ipv4Block } from "../ipv4.ts";
import type { LanRequest } from "./lan.ts";

/** Settings as flags and environment variables give them. */
export interface SetupRequest {
  readonly bridge: string;
  /** The managed network, such as `192.168.127.0/24`. */
  readonly subnet: string;
  /** The host's address in it, without a prefix length. */
  readonly hostIp: string;
  readonly runtimeDir: string;
  readonly logDir: string;
  /** Holds the set-up's record, too. */
  readonly workDir: string;
  readonly bzImage: string;
  readonly vmlinux: string;
  /** Where the systemd unit goes; empty means that none is written. */
  readonly serviceFile: string;
  /** Absolute paths of the two programs that the unit runs. */
  readonly volantdProgram: string;
  readonly volarProgram: string;
  /** Use a bridge of that name that someone else made. */
  readonly adopt: boolean;
  /** Undefined: as recorded, else {@link DEFAULT_FIREWALL}. */
  readonly firewall?: FirewallKind | undefined;
  /** LAN bridges that are to be there besides those that are recorded. */
  readonly lans?: readonly LanRequest[];
}

/** What the firewall's rules are written with. */
export type FirewallKind = "iptables" | "nftables";
export const DEFAULT_FIREWALL: FirewallKind = "iptables";

/** A request that passed {@link checkSettings}: every path is absolute, the addresses fit each other. */
export interface SetupSettings extends SetupRequest {
  readonly block: Ipv4Block;
  readonly lans: readonly LanRequest[];
}

/** An interface's name holds at most 15 bytes: IFNAMSIZ is 16 with the closing zero (linux/if.h). */
const MAX_LINK_NAME_BYTES = 15;

/** Blocks that no host network may lie in, by RFC 6890: this network, loopback, link-local, multicast, reserved. */
const UNUSABLE_BLOCKS = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"];

function invalid(message: string, hint?: string): VolantError {
  return new VolantError("invalid", message, hint === undefined ? {} : { hint });
}

/**
 * The name, if the kernel takes it as an interface's (dev_valid_name in net/core/dev.c: no `/`, no `:`, no white space, not `.` or
 * `..`) and it needs no quoting anywhere.
 *
 * @throws VolantError `invalid`
 */
export function checkBridgeName(name: string): string {
  if (name === "") throw invalid("the bridge needs a name, and it is empty", "set --bridge or VOLANT_BRIDGE");
  return checkLinkName("bridge", name);
}

function checkLinkName(what: string, name: string): string {
  const shown = JSON.stringify(name);
  if (Buffer.byteLength(name) > MAX_LINK_NAME_BYTES) {
    throw invalid(
      `the ${what} name ${shown} is ${Buffer.byteLength(name)} bytes long, and Linux allows ${MAX_LINK_NAME_BYTES}`,
    );
  }
  // `+` at the end is a wildcard to iptables; a leading `-` would be read as an option.
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(name)) {
    throw invalid(
      `the ${what} name ${shown} must be made of letters, digits, "_", "." and "-", and not start with "." or "-"`,
    );
  }
  // These name all interfaces at once under /proc/sys/net/ipv4/conf, and lo is never a bridge.
  if (["all", "default", "lo"].includes(name))
    throw invalid(`the ${what} can't be called ${shown}: Linux uses that name`);
  return name;
}

function checkSubnet(text: string): Ipv4Block {
  const cidr = parseCidr(text);
  if (cidr === undefined) {
    throw invalid(
      `the subnet ${JSON.stringify(text)} is not of the form 192.168.127.0/24`,
      "set --subnet or VOLANT_SUBNET",
    );
  }
  if (cidr.prefixLength < 8 || cidr.prefixLength > 30) {
    throw invalid(`the subnet ${text} has a prefix of /${cidr.prefixLength}, and it must lie between /8 and /30`);
  }
  const block = blockOf(cidr.address, cidr.prefixLength);
  if (block.first !== cidr.address) {
    throw invalid(`the subnet ${text} has host bits set`, `you may mean ${formatBlock(block)}`);
  }
  const unusable = UNUSABLE_BLOCKS.find((other) => {
    const parsed = parseCidr(other);
    return parsed !== undefined && blocksOverlap(block, blockOf(parsed.address, parsed.prefixLength));
  });
  if (unusable !== undefined) throw invalid(`the subnet ${text} lies in ${unusable}, which is not for hosts`);
  return block;
}

function checkHostIp(text: string, block: Ipv4Block): string {
  const address = parseIpv4(text);
  const subnet = formatBlock(block);
  if (address === undefined) {
    throw invalid(`the host address ${JSON.stringify(text)} is not an IPv4 address`, "set --host-ip or VOLANT_HOST_IP");
  }
  if (!blockHolds(block, address)) {
    throw invalid(
      `the host address ${text} is not in the subnet ${subnet}`,
      `choose one inside, such as --host-ip ${formatIpv4(block.first + 1)}`,
    );
  }
  if (address === block.first) throw invalid(`the host address ${text} is the network address of ${subnet}`);
  if (address === lastAddress(block)) throw invalid(`the host address ${text} is the broadcast address of ${subnet}`);
  return text;
}

function checkPath(what: string, path: string): string {
  if (!isAbsolute(path)) throw invalid(`the ${what} ${JSON.stringify(path)} must be an absolute path`);
  // eslint-disable-next-line no-control-regex -- control characters are the point: a unit file can't hold them
  if (/[\u0000-\u001f\u007f]/.test(path))
    throw invalid(`the ${what} ${JSON.stringify(path)} holds a control character`);
  return path;
}

/** A program that a unit can name: systemd takes no quotes and no backslashes there (string_is_safe in its src/basic). */
function checkProgram(what: string, path: string): void {
  checkPath(what, path);
  if (/["'\\]/.test(path)) throw invalid(`the ${what} ${JSON.stringify(path)} holds a quote or a backslash`);
}

/**
 * The settings, if they make sense by themselves (whether they fit this host is the plan's question).
 *
 * @throws VolantError `invalid` with one sentence naming the first setting that is wrong
 */
export function checkSettings(request: SetupRequest): SetupSettings {
  checkBridgeName(request.bridge);
  const block = checkSubnet(request.subnet);
  checkHostIp(request.hostIp, block);
  checkPath("runtime folder", request.runtimeDir);
  checkPath("log folder", request.logDir);
  checkPath("work folder", request.workDir);
  checkPath("kernel image", request.bzImage);
  checkPath("uncompressed kernel", request.vmlinux);
  if (request.serviceFile !== "") {
    checkPath("service file", request.serviceFile);
    if (!/\/[A-Za-z0-9_@:-][A-Za-z0-9_@:.-]*\.service$/.test(request.serviceFile)) {
      throw invalid(`the service file ${JSON.stringify(request.serviceFile)} must have a name that ends in ".service"`);
    }
    checkProgram("volantd program", request.volantdProgram);
    checkProgram("volar program", request.volarProgram);
  }
  const { firewall, lans = [] } = request;
  if (firewall !== undefined && !["iptables", "nftables"].includes(firewall)) {
    throw invalid(`the firewall ${JSON.stringify(firewall)} does not exist: use iptables or nftables`);
  }
  checkLans(request.bridge, lans);
  return { ...request, lans, block };
}

function checkLans(managed: string, lans: readonly LanRequest[]): void {
  for (const { bridge, card } of lans) {
    checkLinkName("LAN bridge", bridge);
    if (card !== null) checkLinkName("network card", card);
    if (bridge === managed) {
      const hint = "choose another name with --lan-name";
      throw invalid(`${bridge} is the managed bridge, which is no LAN's`, hint);
    }
    if (card === managed || card === bridge) throw invalid(`a bridge can't be made on itself, ${card}`);
    if (lans.some((other) => other.bridge === bridge && other.card !== card)) {
      throw invalid(`the LAN bridge ${bridge} is named twice`);
    }
  }
}

/**
 * The bridge's MAC, the same for ever for the same name and subnet. A restored or cloned guest remembers its gateway's MAC, so it
 * must survive an undo and a new set-up, and be the same on the host that a snapshot moves to. `06:` is locally
 * administered unicast (IEEE 802), and apart from the `02:` of VMs.
 */
export function bridgeMac(settings: Pick<SetupSettings, "bridge" | "subnet">): string {
  const digest = createHash("sha256").update(`volant bridge\0${settings.bridge}\0${settings.subnet}`).digest();
  return ["06", ...[...digest.subarray(0, 5)].map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

/** The alias that marks the bridge as this set-up's. A set-up is known by its work folder, which holds its record. */
export function bridgeAlias(settings: Pick<SetupSettings, "workDir">): string {
  return `volant:bridge:${createHash("sha256").update(settings.workDir).digest("hex").slice(0, 8)}`;
}

/** The comment that marks a firewall rule as belonging to this bridge. */
export function ruleComment(bridge: string): string {
  return `volant:${bridge}`;
}
