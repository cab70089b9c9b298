import { VolantError } from "@volant/contract/errors";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import type { Result } from "../../output.ts";
import type { WaitFlags } from "../vms/wait-flags.ts";
import {
  addConfigOptions,
  addRolloutOptions,
  configOf,
  hasConfigFlags,
  rolloutOf,
  type ReplicaFlags,
  type RolloutFlags,
} from "./config-flags.ts";
import { addWaitOptions, shown } from "./wait-progress.ts";

interface UpdateOptions extends ReplicaFlags, RolloutFlags, WaitFlags {}

/** Changes a deployment's configuration, which is then rolled out. */
export async function updateDeployment(context: CommandContext, name: string, options: UpdateOptions): Promise<Result> {
  const rollout = rolloutOf(options);
  const isConfig = hasConfigFlags(options);
  if (!isConfig && Object.keys(rollout).length === 0) {
    throw new VolantError("invalid", "nothing is to be changed: name a setting, or a file with --config");
  }
  const { deployments } = await context.client();
  const config = isConfig ? { config: await configOf(context, options, (await deployments.get(name)).config) } : {};
  return shown(context, await deployments.update(name, { ...rollout, ...config }), options);
}

export function registerUpdate(deployments: Command, io: CliIo): void {
  const command = deployments
    .command("update")
    .description("change the configuration of a deployment, and roll it out one replica after the other")
    .argument("<deployment>");
  addWaitOptions(addRolloutOptions(addConfigOptions(command))).action(action(io, updateDeployment));
}
