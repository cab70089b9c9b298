/** What the doctor says, and which checks it knows. No I/O. */

/** Every check, in the order in which they are told, with what it looks at. */
export const CHECKS = {
  setup: "the set-up is recorded, complete, and the one that volantd is set to",
  bridge: "the managed bridge exists and is up",
  bridge_address: "the bridge has the host's address",
  bridge_mac: "the bridge has the MAC that guests remember as their gateway's",
  bridge_ports: "the bridge has ports left",
  lan_bridges: "the LAN bridges that VMs may join are there, with their cards",
  forwarding: "the kernel forwards IPv4",
  masquerade: "guests leave by other links under the host's address",
  forward_policy: "the FORWARD chain lets guests through",
  forward_drop: "no other table drops what guests send or get",
  firewall_frontend: "no firewall manager is active that may remove our rules",
  br_netfilter: "frames between guests are not dropped by the IPv4 firewall",
  rp_filter: "the reverse path filter lets guests' packets in",
  route_overlap: "nothing else has addresses of the managed subnet",
  mtu: "guests' packets fit through the link that leads out",
  tap_seizure: "no network manager is about to take the taps",
  tun: "taps can be made",
  kvm: "the processor runs guests, not a program",
  hypervisor: "a hypervisor is installed",
  kernel: "a kernel for guests is installed",
  guest_policy: "guests are held to their addresses",
  transport: "data reaches guests as it should",
  subnet_pool: "the managed subnet has addresses left",
  published_ports: "the ports that VMs have published are listened on",
  stale_taps: "no tap of ours is left without its hypervisor",
  stale_processes: "no hypervisor of ours is left without its VM",
  stale_folders: "no VM's folder is left without its hypervisor",
  clock: "the host's clock can be believed",
} as const;

export type CheckName = keyof typeof CHECKS;

/** `skipped`: it could not be looked at, and the sentence says why. */
export type Level = "ok" | "warning" | "broken" | "skipped";

export interface Finding {
  readonly check: CheckName;
  readonly level: Level;
  readonly sentence: string;
  /** A command for a root shell. */
  readonly fix?: string;
}

/** A finding without its check's name, as a check gives it. */
export type Verdict = Omit<Finding, "check">;

export const ok = (sentence: string): Verdict => ({ level: "ok", sentence });
export const skipped = (sentence: string): Verdict => ({ level: "skipped", sentence });

export function warning(sentence: string, fix?: string): Verdict {
  return { level: "warning", sentence, ...(fix === undefined ? {} : { fix }) };
}

export function broken(sentence: string, fix?: string): Verdict {
  return { level: "broken", sentence, ...(fix === undefined ? {} : { fix }) };
}
