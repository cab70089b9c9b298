import { VolantError } from "@volant/contract/errors";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { memoryMib, wholeNumber } from "../../values.ts";
import { deploymentFields } from "../../views/deployments.ts";
import { vmFields } from "../../views/vms.ts";
import { configPatch } from "./config/config-patch.ts";

interface ScaleOptions {
  readonly cpu?: number;
  /** MiB. */
  readonly memory?: number;
  readonly restart?: boolean;
  readonly replicas?: number;
}

/** Gives a VM other resources, from its next start on; or a deployment another number of replicas. */
export async function scaleVm(context: CommandContext, name: string, options: ScaleOptions): Promise<Result> {
  const { cpu, memory, restart, replicas } = options;
  const isResources = cpu !== undefined || memory !== undefined;
  if (replicas !== undefined) {
    if (isResources || restart === true) {
      throw new VolantError(
        "invalid",
        "--replicas is for a deployment, and --cpu, --memory and --restart are for one VM",
        {
          hint: `volar deployments update ${name} gives all replicas other resources`,
        },
      );
    }
    return result(await (await context.client()).deployments.scale(name, replicas), deploymentFields);
  }
  if (!isResources) throw new VolantError("invalid", "nothing is to be changed: give --cpu, --memory or --replicas");
  const { vms } = await context.client();
  const { config } = await vms.config(name);
  await vms.setConfig(
    name,
    configPatch(config, { ...(cpu === undefined ? {} : { cpu }), ...(memory === undefined ? {} : { memory }) }),
  );
  return result(restart === true ? await vms.restart(name) : await vms.get(name), vmFields);
}

export function registerScale(vms: Command, io: CliIo): void {
  vms
    .command("scale")
    .description("give a VM other resources from its next start on, or a deployment another number of replicas")
    .argument("<vm|deployment>")
    .option("--cpu <cores>", "processor cores", wholeNumber(1))
    .option("--memory <mib>", "memory in MiB, or with a unit: 512M, 2G", memoryMib)
    .option("--restart", "restart the VM at once, so that they are in force")
    .option("--replicas <count>", "how many replicas the deployment of this name is to have", wholeNumber(0))
    .action(action(io, scaleVm));
}
