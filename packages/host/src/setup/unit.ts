/** The systemd unit that runs volantd and restores the network at boot. No I/O. */
import { DEFAULT_FIREWALL } from "./settings.ts";
import type { SetupSettings } from "./settings.ts";

/** Settings that the unit hands to both programs, in the contract's order. */
export function serviceEnvironment(settings: SetupSettings): readonly (readonly [string, string])[] {
  return [
    ["VOLANT_BRIDGE", settings.bridge],
    ["VOLANT_SUBNET", settings.subnet],
    ["VOLANT_HOST_IP", settings.hostIp],
    ["VOLANT_RUNTIME_DIR", settings.runtimeDir],
    ["VOLANT_LOG_DIR", settings.logDir],
    ["VOLANT_WORK_DIR", settings.workDir],
    ["VOLANT_KERNEL_BZIMAGE", settings.bzImage],
    ["VOLANT_KERNEL_VMLINUX", settings.vmlinux],
    ["VOLANT_FIREWALL", settings.firewall ?? DEFAULT_FIREWALL],
  ];
}

/** A quoted word of a unit file: C-style escapes (systemd.syntax(7)) and doubled specifiers (systemd.unit(5)). */
function quoted(text: string): string {
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("%", "%%")}"`;
}

/**
 * The unit's text. Stopping volantd must never stop a VM, hence KillMode=process (the hypervisors stay), Delegate=yes (systemd
 * leaves the groups below alone) and OOMPolicy=continue (one VM killed for want of memory does not end the service).
 * It starts after whatever else sets rules up at boot, so that ours are put in front of theirs.
 */
export function serviceUnit(settings: SetupSettings): string {
  const environment = serviceEnvironment(settings).map(([name, value]) => `Environment=${quoted(`${name}=${value}`)}`);
  return `# Written by volar setup, and removed by volar setup --undo.
[Unit]
Description=Volant, the microVM orchestrator
After=network.target nftables.service netfilter-persistent.service firewalld.service ufw.service docker.service

[Service]
Type=exec
${environment.join("\n")}
ExecStartPre=-${quoted(settings.volarProgram)} setup --service-file ""
ExecStart=${quoted(settings.volantdProgram)}
Restart=on-failure
RestartSec=2
KillMode=process
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
`;
}
