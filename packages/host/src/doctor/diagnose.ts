/** From what was seen to what is said. No I/O. */
import {
  checkBridge,
  checkBridgeAddress,
  checkBridgeMac,
  checkBridgePorts,
  checkMtu,
  checkRouteOverlap,
  checkSetup,
  checkSubnetPool,
} from "./check-bridge.ts";
import {
  checkBrNetfilter,
  checkFirewallFrontend,
  checkForwardDrop,
  checkForwarding,
  checkForwardPolicy,
  checkMasquerade,
  checkRpFilter,
} from "./check-firewall.ts";
import { checkLanBridges } from "./check-lan.ts";
import {
  checkClock,
  checkHypervisor,
  checkKernel,
  checkKvm,
  checkStaleFolders,
  checkStaleProcesses,
  checkStaleTaps,
  checkTapSeizure,
  checkTun,
} from "./check-machine.ts";
import { checkGuestPolicy } from "./check-policy.ts";
import { checkPublishedPorts } from "./check-ports.ts";
import { checkTransport } from "./check-transport.ts";
import { CHECKS, type CheckName, type Finding, type Level, type Verdict, skipped } from "./finding.ts";
import type { DoctorView } from "./view.ts";

/** One check for every name: at least one verdict each. */
const JUDGES: { readonly [Name in CheckName]: (view: DoctorView) => Verdict[] } = {
  setup: checkSetup,
  bridge: checkBridge,
  bridge_address: checkBridgeAddress,
  bridge_mac: checkBridgeMac,
  bridge_ports: checkBridgePorts,
  lan_bridges: checkLanBridges,
  forwarding: checkForwarding,
  masquerade: checkMasquerade,
  forward_policy: checkForwardPolicy,
  forward_drop: checkForwardDrop,
  firewall_frontend: checkFirewallFrontend,
  br_netfilter: checkBrNetfilter,
  rp_filter: checkRpFilter,
  route_overlap: checkRouteOverlap,
  mtu: checkMtu,
  tap_seizure: checkTapSeizure,
  tun: checkTun,
  kvm: checkKvm,
  hypervisor: checkHypervisor,
  kernel: checkKernel,
  guest_policy: checkGuestPolicy,
  transport: checkTransport,
  subnet_pool: checkSubnetPool,
  published_ports: checkPublishedPorts,
  stale_taps: checkStaleTaps,
  stale_processes: checkStaleProcesses,
  stale_folders: checkStaleFolders,
  clock: checkClock,
};

/** What Volant would make and keep where it manages the network, and what matters for that alone. */
const OF_NETWORK: ReadonlySet<CheckName> = new Set([
  "setup",
  "bridge",
  "bridge_address",
  "bridge_mac",
  "bridge_ports",
  "lan_bridges",
  "forwarding",
  "masquerade",
  "forward_policy",
  "forward_drop",
  "firewall_frontend",
  "br_netfilter",
  "rp_filter",
  "route_overlap",
  "mtu",
  "tap_seizure",
  "guest_policy",
  "stale_taps",
]);
const UNMANAGED = skipped("VOLANT_NETWORK=noop: the network of this host is not Volant's to make");

/** What every check finds, in the order of {@link CHECKS}: at least one finding each. */
export function diagnose(view: DoctorView): Finding[] {
  return (Object.keys(CHECKS) as CheckName[]).flatMap((check) =>
    (!view.managed && OF_NETWORK.has(check) ? [UNMANAGED] : JUDGES[check](view)).map((verdict) => ({
      check,
      ...verdict,
    })),
  );
}

/** The worst of all: broken, else warning, else ok. What was skipped counts for nothing. */
export function worstLevel(findings: readonly Finding[]): Exclude<Level, "skipped"> {
  const levels = new Set(findings.map(({ level }) => level));
  if (levels.has("broken")) return "broken";
  return levels.has("warning") ? "warning" : "ok";
}
