import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { durationMs } from "../../values.ts";
import { deploymentFields } from "../../views/deployments.ts";
import { DEFAULT_WAIT_MS, waitForDeployment } from "./wait-progress.ts";

interface WaitOptions {
  /** Milliseconds. */
  readonly timeout?: number;
}

/** Waits until all replicas have the wanted version and are ready. */
export async function waitDeployment(context: CommandContext, name: string, options: WaitOptions): Promise<Result> {
  return result(await waitForDeployment(context, name, options.timeout ?? DEFAULT_WAIT_MS), deploymentFields);
}

export function registerWait(deployments: Command, io: CliIo): void {
  deployments
    .command("wait")
    .description("wait until all replicas have the wanted version and are ready")
    .argument("<deployment>")
    .option("--timeout <time>", "give up after this time, such as 30 or 5m (default: 10m)", durationMs)
    .action(action(io, waitDeployment));
}
