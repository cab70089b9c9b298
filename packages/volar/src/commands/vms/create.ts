import type { CreateVmRequest } from "@volant/contract";
import type { VolantClient } from "@volant/sdk";
import { Option, type Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { readJson } from "../../json-file.ts";
import { result, type Result } from "../../output.ts";
import { keyValue, memoryMib, repeated, wholeNumber } from "../../values.ts";
import { vmFields } from "../../views/vms.ts";
import { gatherPorts, PORT_SPEC_HELP } from "./port-spec.ts";
import { createRequest, type CreateFlags } from "./create-request.ts";
import { RESTART_HELP, RESTART_POLICIES } from "./restart-flag.ts";
import { addWaitOptions, waitLimitMs, type WaitFlags } from "./wait-flags.ts";
import { waitWithProgress } from "./wait-progress.ts";

interface CreateOptions extends CreateFlags, WaitFlags {
  readonly config?: string;
}

/** The request with the initramfs that a flag names in volantd's hands, and by its checksum. */
async function withInitramfs(
  context: CommandContext,
  client: VolantClient,
  request: CreateVmRequest,
  given: string | undefined,
): Promise<CreateVmRequest> {
  const initramfs = request.config?.initramfs;
  if (given === undefined || initramfs === undefined) return request;
  const [{ absoluteAddress }, { checkFiles, handOver }] = await Promise.all([
    import("../../plugin-files.ts"),
    import("../../hand-over.ts"),
  ]);
  const address = absoluteAddress(given, { folder: process.cwd() });
  const named = { field: "--initramfs", url: given, checksum: initramfs.checksum, address };
  const files = await checkFiles(context, [named]);
  await handOver(context, client, files);
  const checksum = files[0]?.actual ?? "";
  return { ...request, config: { ...request.config, initramfs: { ...initramfs, url: address, checksum } } };
}

/** Creates a VM and, if asked to, waits until it runs. */
export async function createVm(context: CommandContext, name: string, options: CreateOptions): Promise<Result> {
  const file = options.config === undefined ? {} : await readJson(options.config, context.io);
  const client = await context.client();
  const given = createRequest(name, options, file);
  let vm = await client.vms.create(await withInitramfs(context, client, given, options.initramfs));
  if (options.wait === true) {
    vm = await waitWithProgress(context, name, "running", waitLimitMs(options));
  }
  return result(vm, vmFields);
}

export function registerCreate(vms: Command, io: CliIo): void {
  const command = vms
    .command("create")
    .description("create a VM")
    .argument("<name>")
    .option("--plugin <plugin>", "what to run: an installed plugin")
    .option("--runtime <name>", "runtime, where it differs from the plugin's")
    .option("--cpu <cores>", "processor cores (default: the plugin's)", wholeNumber(1))
    .option("--memory <mib>", "memory in MiB, or with a unit: 512M, 2G (default: the plugin's)", memoryMib)
    .option("--network <mode>", "bridged, vsock or dhcp (default: the plugin's)")
    .option(
      "-p, --publish <port>",
      `reach a port of the guest through one of this host: ${PORT_SPEC_HELP}`,
      gatherPorts,
    )
    .option("--ip <address>", "address to keep for this VM, of the managed subnet (default: the lowest free one)")
    .option("--mac <address>", "MAC address of the guest, for life (default: one of Volant's own)")
    .option("--allow-spoofing", "let the guest send under any address, which only an operator may decide")
    .addOption(new Option("--restart <policy>", RESTART_HELP).choices(RESTART_POLICIES))
    .option("--env <key=value>", "environment variable of the workload; may be repeated", keyValue)
    .option("--nameserver <address>", "DNS server for the guest; may be repeated", repeated)
    .option("--config <file>", "configuration as a JSON file, or - for standard input; flags win over it")
    .option("--kernel-cmdline <options>", "added to the guest kernel's command line")
    .option("--kernel <path>", "another kernel than the installed one")
    .option("--initramfs <path|url>", "another initramfs than the plugin's, which is handed over to volantd")
    .option("--initramfs-checksum <checksum>", "its checksum, sha256:<hex>")
    .option("--api-host <host>", "API address that the guest is told")
    .option("--api-port <port>", "API port that the guest is told")
    .option("--device <address>", "PCI device to pass through; may be repeated", repeated)
    .option("--device-allowlist <pattern>", "PCI devices that may be passed through; may be repeated", repeated);
  addWaitOptions(command).action(action(io, createVm));
}
