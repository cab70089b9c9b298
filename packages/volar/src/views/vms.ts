import type { Vm, VmLease, VmPublishedPort } from "@volant/contract";
import { formatFields, formatTable, printable } from "../table.ts";

/** How soon a VM is started again. */
function againText(at: string | undefined, nowMs: number): string | undefined {
  if (at === undefined) return undefined;
  return `restarts in ${Math.max(0, Math.ceil((Date.parse(at) - nowMs) / 1000))} s`;
}

/** Status and, where there is one, why; of a VM that has ended, when it is started again. */
export function phaseText(vm: Pick<Vm, "status" | "reason" | "next_restart_at">, nowMs = Date.now()): string {
  const more = [vm.reason, againText(vm.next_restart_at, nowMs)].filter((part) => part !== undefined);
  return more.length === 0 ? vm.status : `${vm.status} (${more.join("; ")})`;
}

/** The policy, and how often it was made use of. */
function restartText({ restart, restarts = 0 }: Vm): string | undefined {
  return restarts === 0 ? restart : `${restart} (${restarts} so far)`;
}

/** What the link to the agent is like. */
function agentText({ attached, responding, version = "" }: Vm["agent"]): string {
  if (!attached) return "not attached";
  return `attached ${version}${responding === false ? " (not responding)" : ""}`.trimEnd();
}

/** `127.0.0.1:8080`, `[::1]:8080`. */
export function endpointText({
  host_address: address,
  host_port: port,
}: Pick<VmPublishedPort, "host_address" | "host_port">): string {
  return `${address.includes(":") ? `[${address}]` : address}:${port}`;
}

/** `127.0.0.1:8080->80`, with a `!` in front while the host can't listen there. */
function portText(published: VmPublishedPort): string {
  return `${published.listening ? "" : "!"}${endpointText(published)}->${published.port}`;
}

/** The same with its name, and why it is not listened on. */
function portLine(published: VmPublishedPort): string {
  const { name, listening, reason } = published;
  const failed = listening ? "" : ` (not listening${reason === undefined ? "" : `: ${reason}`})`;
  return `${name === undefined ? "" : `${name} `}${portText(published)}${failed}`;
}

/** Published ports as a table. */
export function publishedTable(ports: readonly VmPublishedPort[]): string {
  return ports.length === 0 ? "no port is published\n" : ports.map((port) => `${printable(portLine(port))}\n`).join("");
}

/** VMs as a table. */
export function vmTable(vms: readonly Vm[]): string {
  return formatTable([
    ["NAME", "STATUS", "PLUGIN", "ADDRESS", "CPU", "MEMORY", "PORTS"],
    ...vms.map((vm) => [
      vm.name,
      phaseText(vm),
      vm.plugin,
      vm.ip_address,
      String(vm.cpu_cores),
      `${vm.memory_mb} MiB`,
      (vm.network.published ?? []).map(portText).join(" "),
    ]),
  ]);
}

/** What a DHCP server gave a guest, and until when. */
function leaseText(lease: VmLease | undefined): string | undefined {
  if (lease === undefined) return undefined;
  const { state, server, expires_at: expiresAt, reason } = lease;
  const parts = [
    state,
    server === undefined ? "" : `from ${server}`,
    expiresAt === undefined ? "" : `until ${expiresAt}`,
    reason === undefined ? "" : `(${reason})`,
  ];
  return parts.filter((part) => part !== "").join(" ");
}

/** What carries data into the guest, and why not what should. */
function transportText({ transport, transport_reason: reason }: Vm["agent"]): string | undefined {
  return reason === undefined ? transport : `${transport} (${reason})`;
}

/** One VM, a line per field. */
export function vmFields(vm: Vm): string {
  return formatFields([
    ["name", vm.name],
    ["id", vm.id],
    ["status", phaseText(vm)],
    ["restart", restartText(vm)],
    ["deployment", vm.deployment],
    ["plugin", vm.plugin],
    ["runtime", vm.runtime],
    ["pid", vm.pid],
    ["cpu", vm.cpu_cores],
    ["memory", `${vm.memory_mb} MiB`],
    ["network", vm.network.mode],
    ["address", vm.ip_address],
    ["gateway", vm.network.lease?.gateway],
    ["name servers", vm.network.lease?.nameservers.join(" ")],
    ["lease", leaseText(vm.network.lease)],
    ...(vm.network.published ?? []).map((port): [string, string] => ["published", portLine(port)]),
    ["mac", vm.mac_address],
    ["tap", vm.network.tap],
    ["bridge", vm.network.bridge],
    ["spoofing", vm.policy?.anti_spoof === undefined ? undefined : vm.policy.anti_spoof ? "refused" : "allowed"],
    ["dropped frames", vm.network.dropped_frames],
    ["kernel", vm.agent.kernel],
    ["agent", agentText(vm.agent)],
    ["data goes over", transportText(vm.agent)],
    ["workload", vm.agent.workload],
    ["health", vm.agent.health],
    ["kernel options", vm.kernel_cmdline],
    ["configuration", vm.pending_config === true ? "changed: in force from the next start" : undefined],
    ["created", vm.created_at],
    ["updated", vm.updated_at],
  ]);
}
