import type { Deployment } from "@volant/contract";
import { Option, type Command } from "commander";
import type { CommandContext } from "../../context.ts";
import { result, type Result } from "../../output.ts";
import { durationMs } from "../../values.ts";
import { deploymentFields } from "../../views/deployments.ts";
import type { WaitFlags } from "../vms/wait-flags.ts";

/** How long `--wait` waits unless told otherwise, in milliseconds: a roll-out goes from one replica to the next. */
export const DEFAULT_WAIT_MS = 600_000;

/** `--wait`, `--wait=<time>`. */
export function addWaitOptions(command: Command): Command {
  return command
    .option(
      "--wait",
      "wait until all replicas are ready; --wait=<time> such as --wait=300 or --wait=5m says how long (default: 10m)",
    )
    .addOption(new Option("--wait-timeout <time>").argParser(durationMs).hideHelp());
}

function progressText({
  name,
  version,
  desired_replicas: wanted,
  ready_replicas: ready,
  updated_replicas: updated,
}: Deployment): string {
  return `${name}: ${updated} of ${wanted} replicas have version ${version}, ${ready} are ready`;
}

/** Waits until all replicas are ready, and shows how many are, where there is a terminal. */
export async function waitForDeployment(context: CommandContext, name: string, timeoutMs: number): Promise<Deployment> {
  const { progress } = context;
  const client = await context.client();
  const deployment = await client.deployments.wait(name, {
    timeoutMs,
    onChange: (now) => progress.show(progressText(now)),
  });
  progress.finish(progressText(deployment));
  return deployment;
}

/** The deployment as it is, or with `--wait` as it is once all replicas are ready. */
export async function shown(context: CommandContext, deployment: Deployment, options: WaitFlags): Promise<Result> {
  if (options.wait !== true) return result(deployment, deploymentFields);
  const timeoutMs = options.waitTimeout ?? DEFAULT_WAIT_MS;
  return result(await waitForDeployment(context, deployment.name, timeoutMs), deploymentFields);
}
