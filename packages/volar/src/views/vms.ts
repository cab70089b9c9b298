import type { Vm, VmLease } from "@volant/contract";
import { formatFields, formatTable } from "../table.ts";

/** Status and, where there is one, why. */
export function phaseText(vm: Pick<Vm, "status" | "reason">): string {
  return vm.reason === undefined ? vm.status : `${vm.status} (${vm.reason})`;
}

/** VMs as a table. */
export function vmTable(vms: readonly Vm[]): string {
  return formatTable([
    ["NAME", "STATUS", "PLUGIN", "ADDRESS", "CPU", "MEMORY"],
    ...vms.map((vm) => [
      vm.name,
      phaseText(vm),
      vm.plugin,
      vm.ip_address === "" ? "-" : vm.ip_address,
      String(vm.cpu_cores),
      `${vm.memory_mb} MiB`,
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

/** One VM, a line per field. */
export function vmFields(vm: Vm): string {
  return formatFields([
    ["name", vm.name],
    ["id", vm.id],
    ["status", phaseText(vm)],
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
    ["mac", vm.mac_address],
    ["tap", vm.network.tap],
    ["bridge", vm.network.bridge],
    ["kernel", vm.agent.kernel],
    ["agent", vm.agent.attached ? `attached ${vm.agent.version ?? ""}`.trimEnd() : "not attached"],
    ["workload", vm.agent.workload],
    ["health", vm.agent.health],
    ["kernel options", vm.kernel_cmdline],
    ["created", vm.created_at],
    ["updated", vm.updated_at],
  ]);
}
