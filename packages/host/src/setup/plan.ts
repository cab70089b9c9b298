/** What must change for the host to be set up: decided from plain data. No I/O. */
import { basename } from "node:path";
import type { ErrorCode } from "@volant/contract";
import { blockOf, blocksOverlap, formatBlock, parseCidr, parseIpv4 } from "../ipv4.ts";
import type { ObservedHost, ObservedLink, ObservedNetwork } from "./observed.ts";
import type { RecordedLan } from "./lan.ts";
import { FORWARDING } from "./operation.ts";
import type { Operation } from "./operation.ts";
import { firewallNotes, planFirewall, refuseFirewall } from "./plan-firewall.ts";
import { planLans } from "./plan-lan.ts";
import { findEffect, firewallOf, knownForwarding, linkForwarding, madeLanBridges, refreshRecord } from "./record.ts";
import type { Effect, SetupRecord } from "./record.ts";
import { bridgeAlias, bridgeMac } from "./settings.ts";
import type { SetupSettings } from "./settings.ts";
import { serviceUnit } from "./unit.ts";

/** A reason why nothing may be done. */
export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
}

export interface SetupAction {
  /** What will be, in a few words. */
  readonly title: string;
  /** False when it is so already. */
  readonly needed: boolean;
  readonly operations: readonly Operation[];
  /** What to write into the record first; undefined when there is nothing to undo. */
  readonly effect: Effect | undefined;
  /** What is there bears our mark: a record that was lost must tell of it again, or undo would leave it. */
  readonly ours?: boolean;
}

/** A file that set-up would write on another host. */
export interface UnwrittenFile {
  readonly path: string;
  readonly content: string;
}

export interface SetupPlan {
  readonly actions: readonly SetupAction[];
  readonly refusals: readonly Refusal[];
  readonly notes: readonly string[];
  /** Files that are not written because this host has no use for them, for those who want to see or place them by hand. */
  readonly unwritten: readonly UnwrittenFile[];
  /** The LAN bridges that the record is to tell of. */
  readonly lans: readonly RecordedLan[];
}

/** Whether the link is the bridge that this set-up made. */
export function isOwnBridge(
  link: ObservedLink,
  settings: Pick<SetupSettings, "bridge" | "workDir">,
  record: SetupRecord | undefined,
): boolean {
  if (link.kind !== "bridge") return false;
  if (link.alias === bridgeAlias(settings)) return true;
  // Made, and not yet marked: set-up ended between the two messages. The MAC tells it from one that someone else made since.
  const effect = findEffect(record, `bridge ${settings.bridge}`);
  return effect?.kind === "bridge" && effect.mac === link.mac && (link.alias ?? "") === "";
}

/** Compares the settings with the host and the record of earlier set-ups. */
export function planSetup(settings: SetupSettings, observed: ObservedHost, stored: SetupRecord | undefined): SetupPlan {
  const record = stored === undefined ? undefined : refreshRecord(stored, observed.kernel);
  const kind = firewallOf(settings, record);
  const refusals = [
    ...refuseRecord(settings, observed, stored),
    ...refuseOverlaps(settings, observed.network),
    ...refuseFirewall(kind, observed),
  ];
  const notes: string[] = [];
  if (observed.network === undefined) notes.push("the host's links can't be listed: planned as if there were none");
  notes.push(...firewallNotes(settings.bridge, observed));

  const bridge = planBridge(settings, observed, record);
  refusals.push(...bridge.refusals);
  const lan = planLans(settings, observed, record);
  refusals.push(...lan.refusals);
  const service = planService({ ...settings, firewall: kind }, observed, record);
  notes.push(...lan.notes, ...service.notes);
  const actions = [
    ...bridge.actions,
    ...planForwarding(observed, record),
    ...planFirewall(kind, settings, madeLanBridges(lan.lans), observed, bridge.own),
    ...service.actions,
    // Last: until here the host's own way to the network is as it was.
    ...lan.actions,
  ];
  return { actions, refusals, notes, unwritten: service.unwritten, lans: lan.lans };
}

function refuseRecord(settings: SetupSettings, observed: ObservedHost, record: SetupRecord | undefined): Refusal[] {
  if (record === undefined) return [];
  const hint = `undo it first (volar setup --undo --work-dir ${settings.workDir}), or choose another --work-dir`;
  if (record.state === "undoing") {
    return [{ code: "wrong_state", message: "an undo was ended in the middle", hint: "finish it: volar setup --undo" }];
  }
  if (observed.recordedNamespaceAlive) return [otherNamespace(record)];
  const { bridge, subnet, hostIp, firewall } = record.settings;
  if (settings.firewall !== undefined && settings.firewall !== firewall) {
    const message = `this host is set up with ${firewall}, and ${settings.firewall} was asked for`;
    return [
      { code: "wrong_state", message, hint: `undo it first (volar setup --undo --work-dir ${settings.workDir})` },
    ];
  }
  if (bridge === settings.bridge && subnet === settings.subnet && hostIp === settings.hostIp) return [];
  const message = `this host is set up with bridge ${bridge}, subnet ${subnet} and host address ${hostIp} already`;
  return [{ code: "wrong_state", message, hint }];
}

/** The refusal to touch what a record tells of another network namespace. */
export function otherNamespace(record: SetupRecord): Refusal {
  return {
    code: "wrong_state",
    message: `the set-up that ${record.settings.workDir} records is in another network namespace, ${record.kernel.networkNamespace}`,
    hint: "run the command there, or choose another --work-dir",
  };
}

/**
 * What the subnet would collide with. Routes for half of all addresses or more are default routes in all but name (VPNs use two halves);
 * any longer prefix leads somewhere in particular, and the subnet would take addresses away from it.
 */
function refuseOverlaps(settings: SetupSettings, network: ObservedNetwork | undefined): Refusal[] {
  if (network === undefined) return [];
  const hint = "choose another with --subnet and --host-ip";
  const refusals: Refusal[] = [];
  const colliding = new Set<string>();
  for (const { link, address, prefixLength } of network.addresses) {
    if (link === settings.bridge) continue;
    const number = parseIpv4(address);
    if (number === undefined) continue;
    const block = blockOf(number, prefixLength);
    if (!blocksOverlap(block, settings.block)) continue;
    colliding.add(`${link} ${formatBlock(block)}`);
    const message = `the subnet ${settings.subnet} overlaps the address ${address}/${prefixLength} of ${link}`;
    refusals.push({ code: "in_use", message, hint });
  }
  for (const route of network.routes) {
    const cidr = parseCidr(route.destination);
    if (cidr === undefined) continue;
    if (route.link === settings.bridge) {
      if (cidr.prefixLength > 0) continue;
      const message = `the default route leaves by ${settings.bridge}, and a managed bridge has none`;
      refusals.push({ code: "in_use", message, hint: "choose another bridge with --bridge" });
      continue;
    }
    const block = blockOf(cidr.address, cidr.prefixLength);
    if (!route.leads || block.prefixLength <= 1 || !blocksOverlap(block, settings.block)) continue;
    // The route that comes with an address is told of with it.
    if (colliding.has(`${route.link ?? ""} ${formatBlock(block)}`)) continue;
    const by = route.link === undefined ? "" : ` by ${route.link}`;
    refusals.push({
      code: "in_use",
      message: `the subnet ${settings.subnet} overlaps the route to ${formatBlock(block)}${by}`,
      hint,
    });
  }
  return refusals;
}

function planBridge(
  settings: SetupSettings,
  observed: ObservedHost,
  record: SetupRecord | undefined,
): { readonly actions: SetupAction[]; readonly refusals: readonly Refusal[]; readonly own: boolean } {
  const name = settings.bridge;
  const mac = bridgeMac(settings);
  const alias = bridgeAlias(settings);
  const link = observed.network?.links.find((other) => other.name === name);
  const adopted = findEffect(record, `adopted_bridge ${name}`);
  const actions: SetupAction[] = [];
  const refusals: Refusal[] = [];
  const own = link !== undefined && isOwnBridge(link, settings, record);
  if (link === undefined || own) {
    if (adopted !== undefined) {
      const message = `the bridge ${name} was adopted from whoever made it, and it is gone`;
      refusals.push({
        code: "not_ready",
        message,
        hint: "make it again, or run volar setup --undo and then volar setup",
      });
    }
    actions.push({
      title: `bridge ${name} with MAC ${mac}`,
      needed: !own,
      operations: [{ kind: "create_bridge", link: name, mac, alias }],
      effect: { kind: "bridge", link: name, mac },
      ours: own,
    });
    if (link !== undefined && link.mac !== mac) {
      const operations: Operation[] = [{ kind: "set_mac", link: name, mac }];
      actions.push({ title: `MAC ${mac} of ${name}`, needed: true, operations, effect: undefined });
    }
    if (link !== undefined && link.alias !== alias) {
      const operations: Operation[] = [{ kind: "set_alias", link: name, alias }];
      actions.push({ title: `mark ${alias} on ${name}`, needed: true, operations, effect: undefined });
    }
  } else if (link.kind !== "bridge") {
    const message = `there is a link called ${name}, and it is not a bridge`;
    refusals.push({ code: "exists", message, hint: "choose another name with --bridge" });
  } else if (adopted === undefined && !settings.adopt) {
    const whose = link.alias?.startsWith("volant:") === true ? "is another Volant's" : "was not made by volar setup";
    const hint = "use it with --adopt, or choose another name with --bridge";
    refusals.push({ code: "exists", message: `the bridge ${name} exists already and ${whose}`, hint });
  } else {
    // A bridge whose MAC was never set takes its ports' lowest; guests must not see their gateway's change.
    const pinned = adopted?.kind === "adopted_bridge" ? adopted.mac : link.mac;
    actions.push({
      title: `bridge ${name}, adopted, with MAC ${pinned}`,
      needed: adopted === undefined || link.mac !== pinned,
      operations: [{ kind: "set_mac", link: name, mac: pinned }],
      effect: { kind: "adopted_bridge", link: name, mac: pinned },
    });
  }

  const { hostIp: address } = settings;
  const { prefixLength } = settings.block;
  const hasAddress = observed.network?.addresses.some(
    (other) => other.link === name && other.address === address && other.prefixLength === prefixLength,
  );
  actions.push(
    {
      title: `address ${address}/${prefixLength} on ${name}`,
      needed: hasAddress !== true,
      operations: [{ kind: "add_address", link: name, address, prefixLength }],
      effect: { kind: "address", link: name, address, prefixLength },
    },
    {
      title: `${name} up`,
      needed: link?.up !== true,
      operations: [{ kind: "set_up", link: name, up: true }],
      effect: { kind: "up", link: name },
    },
  );
  return { actions, refusals, own };
}

function planForwarding(observed: ObservedHost, record: SetupRecord | undefined): SetupAction[] {
  const sysctls = Object.entries(observed.sysctls).map(([name, before]) => [name, { before }] as const);
  const isOn = observed.sysctls[FORWARDING] === "1";
  // The switch for all sets those of the links, too. What is recorded of it tells what each of them was before.
  const links = isOn ? linkForwarding(record, observed.sysctls).filter((name) => observed.sysctls[name] === "0") : [];
  return [
    {
      title: "IPv4 forwarding",
      needed: !isOn,
      operations: [{ kind: "enable_forwarding" }],
      // Once it has been turned on by us, what it was before that is what counts.
      effect: knownForwarding(record) ?? { kind: "forwarding", sysctls: Object.fromEntries(sysctls) },
    },
    ...links.map((name): SetupAction => {
      const [, , , link = ""] = name.split("/");
      const operations: Operation[] = [{ kind: "set_sysctl", name, value: "1" }];
      return { title: `IPv4 forwarding of ${link}`, needed: true, operations, effect: undefined };
    }),
  ];
}

/** What guests need of the host and is not in place, in a few words each: the managed bridge, forwarding, the firewall. LAN bridges are apart. */
export function missingParts(settings: SetupSettings, observed: ObservedHost, stored: SetupRecord): string[] {
  const record = refreshRecord(stored, observed.kernel);
  const bridge = planBridge(settings, observed, record);
  const actions = [
    ...bridge.actions,
    ...planForwarding(observed, record),
    ...planFirewall(firewallOf(settings, record), settings, madeLanBridges(record.lans), observed, bridge.own),
  ];
  return actions.flatMap(({ title, needed }) => (needed ? [title] : []));
}

function planService(
  settings: SetupSettings,
  { service }: ObservedHost,
  record: SetupRecord | undefined,
): Pick<SetupPlan, "actions" | "notes" | "unwritten"> {
  const path = settings.serviceFile;
  if (path === "") return { actions: [], notes: [], unwritten: [] };
  const content = serviceUnit(settings);
  if (!service.systemd) {
    const note = `no service: systemd is not this machine's init, so ${path} is not written; start volantd by other means`;
    return { actions: [], notes: [note], unwritten: [{ path, content }] };
  }
  const unit = basename(path);
  const old = findEffect(record, `file ${path}`);
  const found = service.unitText ?? null;
  // A text that we wrote is not what was there before us.
  const before = old?.kind === "file" && old.content === found ? old.before : found;
  const actions: SetupAction[] = [
    {
      title: `unit ${path}`,
      needed: found !== content,
      operations: [{ kind: "write_file", path, content }, { kind: "systemd_reload" }],
      effect: { kind: "file", path, content, before },
    },
    {
      title: `${unit} started at boot`,
      needed: !service.enabled,
      operations: [{ kind: "systemctl", verb: "enable", unit }],
      effect: { kind: "service", unit },
    },
  ];
  return { actions, notes: [`${unit} is not started now: systemctl start ${unit}`], unwritten: [] };
}
