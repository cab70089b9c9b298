import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { readJson } from "../../json-file.ts";
import { result, type Result } from "../../output.ts";
import { keyValue, memoryMib, repeated, wholeNumber } from "../../values.ts";
import { vmFields } from "../../views/vms.ts";
import { createRequest, type CreateFlags } from "./create-request.ts";
import { addWaitOptions, type WaitFlags } from "./wait-flags.ts";
import { DEFAULT_WAIT_MS, waitWithProgress } from "./wait-progress.ts";

interface CreateOptions extends CreateFlags, WaitFlags {
  readonly config?: string;
}

/** Creates a VM and, if asked to, waits until it runs. */
export async function createVm(context: CommandContext, name: string, options: CreateOptions): Promise<Result> {
  const file = options.config === undefined ? {} : await readJson(options.config, context.io);
  const client = await context.client();
  let vm = await client.vms.create(createRequest(name, options, file));
  if (options.wait === true) {
    vm = await waitWithProgress(context, name, "running", options.waitTimeout ?? DEFAULT_WAIT_MS);
  }
  return result(vm, vmFields);
}

export function registerCreate(vms: Command, io: CliIo): void {
  const command = vms
    .command("create")
    .description("create a VM")
    .argument("<name>")
    .option("--plugin <name>", "what to run: an installed plugin")
    .option("--runtime <name>", "runtime, where it differs from the plugin's")
    .option("--cpu <cores>", "processor cores (default: the plugin's)", wholeNumber(1))
    .option("--memory <mib>", "memory in MiB, or with a unit: 512M, 2G (default: the plugin's)", memoryMib)
    .option("--network <mode>", "bridged, vsock or dhcp (default: the plugin's)")
    .option("--env <key=value>", "environment variable of the workload; may be repeated", keyValue)
    .option("--nameserver <address>", "DNS server for the guest; may be repeated", repeated)
    .option("--config <file>", "configuration as a JSON file, or - for standard input; flags win over it")
    .option("--kernel-cmdline <options>", "added to the guest kernel's command line")
    .option("--kernel <path>", "another kernel")
    .option("--initramfs <url>", "another initramfs")
    .option("--initramfs-checksum <checksum>", "its checksum, sha256:<hex>")
    .option("--api-host <host>", "API address that the guest is told")
    .option("--api-port <port>", "API port that the guest is told")
    .option("--device <address>", "PCI device to pass through; may be repeated", repeated)
    .option("--device-allowlist <pattern>", "PCI devices that may be passed through; may be repeated", repeated);
  addWaitOptions(command).action(action(io, createVm));
}
