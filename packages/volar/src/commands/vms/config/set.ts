import { Option, type Command } from "commander";
import { action, type CommandContext } from "../../../context.ts";
import type { CliIo } from "../../../io.ts";
import { readJson } from "../../../json-file.ts";
import { result, type Result } from "../../../output.ts";
import { keyValue, memoryMib, repeated, wholeNumber } from "../../../values.ts";
import { configText } from "../../../views/vm-config.ts";
import { RESTART_HELP, RESTART_POLICIES } from "../restart-flag.ts";
import { configPatch, type ConfigFlags } from "./config-patch.ts";

interface SetOptions extends ConfigFlags {
  readonly config?: string;
}

/** Changes a VM's configuration. */
export async function setConfig(context: CommandContext, name: string, options: SetOptions): Promise<Result> {
  const file = options.config === undefined ? {} : await readJson(options.config, context.io);
  const { vms } = await context.client();
  const { config: current } = await vms.config(name);
  const state = await vms.setConfig(name, configPatch(current, options, file));
  return result(state, configText, [], () => [name]);
}

export function registerConfigSet(config: Command, io: CliIo): void {
  config
    .command("set")
    .description("change it; a running VM keeps what it has until it is started anew")
    .argument("<vm>")
    .option("--plugin <plugin>", "what to run: an installed plugin")
    .option("--runtime <name>", "runtime, where it differs from the plugin's")
    .option("--cpu <cores>", "processor cores", wholeNumber(1))
    .option("--memory <mib>", "memory in MiB, or with a unit: 512M, 2G", memoryMib)
    .option("--network <mode>", "bridged, vsock or dhcp; takes the place of the whole network object")
    .option("--ip <address>", "address to keep for this VM, of the managed subnet; none gives it up")
    .addOption(new Option("--restart <policy>", `${RESTART_HELP}; in force at once`).choices(RESTART_POLICIES))
    .option(
      "--env <key=value>",
      "environment variable of the workload, beside those that it has; may be repeated",
      keyValue,
    )
    .option(
      "--nameserver <address>",
      "DNS server for the guest, in place of those that it has; may be repeated",
      repeated,
    )
    .option("--kernel-cmdline <options>", "added to the guest kernel's command line")
    .option("--api-host <host>", "API address that the guest is told")
    .option("--api-port <port>", "API port that the guest is told")
    .option(
      "--config <file>",
      "patch as a JSON file, or - for standard input: each field in it replaces that field, whole",
    )
    .action(action(io, setConfig));
}
