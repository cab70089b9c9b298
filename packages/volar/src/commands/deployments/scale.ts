import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import type { Result } from "../../output.ts";
import { wholeNumber } from "../../values.ts";
import type { WaitFlags } from "../vms/wait-flags.ts";
import { addWaitOptions, shown } from "./wait-progress.ts";

interface ScaleOptions extends WaitFlags {
  readonly replicas: number;
}

/** Makes a deployment have so many replicas. */
export async function scaleDeployment(context: CommandContext, name: string, options: ScaleOptions): Promise<Result> {
  const client = await context.client();
  return shown(context, await client.deployments.scale(name, options.replicas), options);
}

export function registerScale(deployments: Command, io: CliIo): void {
  const command = deployments
    .command("scale")
    .description("make a deployment have so many replicas")
    .argument("<deployment>")
    .requiredOption("--replicas <count>", "how many", wholeNumber(0));
  addWaitOptions(command).action(action(io, scaleDeployment));
}
