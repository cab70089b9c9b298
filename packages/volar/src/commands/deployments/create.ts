import type { VmConfig } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import type { Result } from "../../output.ts";
import { wholeNumber } from "../../values.ts";
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

interface CreateOptions extends ReplicaFlags, RolloutFlags, WaitFlags {
  readonly replicas?: number;
}

/** Creates a deployment and, if asked to, waits until its replicas are ready. */
export async function createDeployment(context: CommandContext, name: string, options: CreateOptions): Promise<Result> {
  if (!hasConfigFlags(options)) {
    throw new VolantError("invalid", `deployment "${name}" needs a configuration: give --plugin or --config`);
  }
  const config = (await configOf(context, options, {})) as VmConfig;
  const replicas = options.replicas === undefined ? {} : { replicas: options.replicas };
  const client = await context.client();
  const deployment = await client.deployments.create({ name, config, ...replicas, ...rolloutOf(options) });
  return shown(context, deployment, options);
}

export function registerCreate(deployments: Command, io: CliIo): void {
  const command = deployments
    .command("create")
    .description("create a deployment: VMs alike, named <name>-1 and so on")
    .argument("<name>")
    .option("--replicas <count>", "how many (default: 1)", wholeNumber(0));
  addWaitOptions(addRolloutOptions(addConfigOptions(command))).action(action(io, createDeployment));
}
