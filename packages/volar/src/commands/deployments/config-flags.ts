import type { DeploymentPatch, VmConfig, VmConfigPatch } from "@volant/contract";
import type { Command } from "commander";
import type { CommandContext } from "../../context.ts";
import { readJson } from "../../json-file.ts";
import { durationMs, keyValue, memoryMib, repeated, wholeNumber } from "../../values.ts";
import { configPatch, type ConfigFlags } from "../vms/config/config-patch.ts";

/** What a replica's configuration is made of. */
export interface ReplicaFlags extends ConfigFlags {
  readonly config?: string;
}

export interface RolloutFlags {
  readonly maxUnavailable?: number;
  /** Milliseconds. */
  readonly readyTimeout?: number;
  /** Milliseconds. */
  readonly minReady?: number;
}

export function addConfigOptions(command: Command): Command {
  return command
    .option(
      "--config <file>",
      "configuration of the replicas as a JSON file, or - for standard input; flags win over it",
    )
    .option("--plugin <plugin>", "what to run: an installed plugin")
    .option("--runtime <name>", "runtime, where it differs from the plugin's")
    .option("--cpu <cores>", "processor cores of each", wholeNumber(1))
    .option("--memory <mib>", "memory of each in MiB, or with a unit: 512M, 2G", memoryMib)
    .option("--network <mode>", "bridged, vsock or dhcp")
    .option("--env <key=value>", "environment variable of the workload; may be repeated", keyValue)
    .option("--nameserver <address>", "DNS server for the guests; may be repeated", repeated)
    .option("--kernel-cmdline <options>", "added to the guest kernel's command line")
    .option("--api-host <host>", "API address that the guests are told")
    .option("--api-port <port>", "API port that the guests are told");
}

export function addRolloutOptions(command: Command): Command {
  return command
    .option(
      "--max-unavailable <count>",
      "how many replicas a roll-out may have down at once (default: 1)",
      wholeNumber(1),
    )
    .option(
      "--ready-timeout <time>",
      "a changed replica that is not ready after this time stops the roll-out (default: 2m)",
      durationMs,
    )
    .option(
      "--min-ready <time>",
      "how long a changed replica must have been ready before the roll-out goes on (default: 2s)",
      durationMs,
    );
}

const CONFIG_FLAGS = [
  "config",
  "plugin",
  "runtime",
  "cpu",
  "memory",
  "network",
  "env",
  "nameserver",
  "kernelCmdline",
  "apiHost",
  "apiPort",
] as const satisfies readonly (keyof ReplicaFlags)[];

/** Whether flags say anything of the configuration. Pure. */
export function hasConfigFlags(flags: ReplicaFlags): boolean {
  return CONFIG_FLAGS.some((flag) => flags[flag] !== undefined);
}

/** What flags and a file say of the configuration. @throws VolantError `invalid` */
export async function configOf(
  context: CommandContext,
  flags: ReplicaFlags,
  current: VmConfig,
): Promise<VmConfigPatch> {
  const file = flags.config === undefined ? {} : await readJson(flags.config, context.io);
  return configPatch(current, flags, file);
}

/** The settings of the roll-out that flags give. Pure. */
export function rolloutOf({
  maxUnavailable,
  readyTimeout,
  minReady,
}: RolloutFlags): Pick<DeploymentPatch, "max_unavailable" | "ready_timeout_ms" | "min_ready_ms"> {
  return {
    ...(maxUnavailable === undefined ? {} : { max_unavailable: maxUnavailable }),
    ...(readyTimeout === undefined ? {} : { ready_timeout_ms: Math.round(readyTimeout) }),
    ...(minReady === undefined ? {} : { min_ready_ms: Math.round(minReady) }),
  };
}
