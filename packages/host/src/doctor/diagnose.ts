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
import { CHECKS, type CheckName, type Finding, type Level, type Verdict } from "./finding.ts";
import type { DoctorView } from "./view.ts";

/** One check for every name: at least one verdict each. */
const JUDGES: { readonly [Name in CheckName]: (view: DoctorView) => Verdict[] } = {
  setup: checkSetup,
  bridge: checkBridge,
  bridge_address: checkBridgeAddress,
  bridge_mac: checkBridgeMac,
  bridge_ports: checkBridgePorts,
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
  subnet_pool: checkSubnetPool,
  stale_taps: checkStaleTaps,
  stale_processes: checkStaleProcesses,
  stale_folders: checkStaleFolders,
  clock: checkClock,
};

/** What every check finds, in the order of {@link CHECKS}: at least one finding each. */
export function diagnose(view: DoctorView): Finding[] {
  return (Object.keys(CHECKS) as CheckName[]).flatMap((check) =>
    JUDGES[check](view).map((verdict) => ({ check, ...verdict })),
  );
}

/** The worst of all: broken, else warning, else ok. What was skipped counts for nothing. */
export function worstLevel(findings: readonly Finding[]): Exclude<Level, "skipped"> {
  const levels = new Set(findings.map(({ level }) => level));
  if (levels.has("broken")) return "broken";
  return levels.has("warning") ? "warning" : "ok";
}
