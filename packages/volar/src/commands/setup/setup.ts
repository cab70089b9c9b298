/** `volar setup`: its flags. What they do is loaded when the command runs. */
import { DEFAULTS } from "@volant/contract/defaults";
import type { Command } from "commander";
import { action } from "../../context.ts";
import { type CliIo, processIo } from "../../io.ts";
import { DEFAULT_LAN_BRIDGE, type SetupFlags } from "./flags.ts";

/** Adds `setup` to the program. */
export function registerSetup(program: Command, io: CliIo = processIo()): void {
  program
    .command("setup")
    .summary("set this host up for VMs: bridge, address, forwarding, masquerade, service")
    .description(
      "Makes the bridge with its address, enables IPv4 forwarding, adds the firewall rules that guests need, and writes a systemd " +
        "unit for volantd; with --lan also a bridge on a network card, for VMs in mode dhcp. A second run changes nothing. What it changes is recorded, and --undo takes exactly that back.",
    )
    .option("--bridge <name>", `bridge of the managed network (VOLANT_BRIDGE, ${DEFAULTS.bridge})`)
    .option("--subnet <cidr>", `the managed network (VOLANT_SUBNET, ${DEFAULTS.subnet})`)
    .option("--host-ip <address>", `this host's address in it (VOLANT_HOST_IP, ${DEFAULTS.hostIp})`)
    .option("--runtime-dir <folder>", "volantd's files of running VMs (VOLANT_RUNTIME_DIR, ~/.volant/run)")
    .option("--log-dir <folder>", "logs of VMs (VOLANT_LOG_DIR, ~/.volant/logs)")
    .option("--work-dir <folder>", `images, kernel and the set-up's record (VOLANT_WORK_DIR, ${DEFAULTS.workDir})`)
    .option("--bzimage <path>", "the guests' kernel (VOLANT_KERNEL_BZIMAGE, kernel/bzImage in the work folder)")
    .option("--vmlinux <path>", "the same, uncompressed (VOLANT_KERNEL_VMLINUX, kernel/vmlinux in the work folder)")
    .option("--service-file <path>", `the systemd unit; empty for none (${DEFAULTS.serviceFile})`)
    .option("--volantd-program <path>", "the volantd that the unit runs (this installation's)")
    .option("--volar-program <path>", "the volar that the unit restores the network with (this installation's)")
    .option("--adopt", "use a bridge of that name although something else made it")
    .option("--firewall <kind>", "iptables or nftables (VOLANT_FIREWALL, iptables)")
    .option("--lan <card>", "make a LAN bridge on this network card: its addresses and routes move to the bridge")
    .option("--lan-name <name>", `what --lan calls the bridge (${DEFAULT_LAN_BRIDGE})`)
    .option(
      "--lan-bridge <bridge>",
      "let VMs in mode dhcp join this bridge, which exists and is left as it is; may be repeated",
      (bridge: string, before: readonly string[] = []) => [...before, bridge],
    )
    .option("--undo", "take back what an earlier set-up did")
    .option("--dry-run", "print what would be done, and do nothing; needs no root and no installed tools")
    .action(
      action(io, async (context, flags: SetupFlags) => (await import("./run.ts")).runSetupCommand(context, flags)),
    );
}
