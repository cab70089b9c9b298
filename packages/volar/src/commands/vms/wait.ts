import type { VmStatus } from "@volant/contract";
import { Option, type Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { durationMs } from "../../values.ts";
import { vmFields } from "../../views/vms.ts";
import { DEFAULT_WAIT_MS, waitWithProgress } from "./wait-progress.ts";

interface WaitOptions {
  readonly status: VmStatus;
  /** Milliseconds. */
  readonly timeout?: number;
}

/** Waits until a VM has a status. */
export async function waitVm(context: CommandContext, name: string, options: WaitOptions): Promise<Result> {
  return result(await waitWithProgress(context, name, options.status, options.timeout ?? DEFAULT_WAIT_MS), vmFields);
}

export function registerWait(vms: Command, io: CliIo): void {
  vms
    .command("wait")
    .description("wait until a VM has a status")
    .argument("<vm>")
    .addOption(
      new Option("--status <status>", "status to wait for")
        .choices(["pending", "starting", "running", "stopped", "crashed"])
        .default("running"),
    )
    .option("--timeout <time>", "give up after this time, such as 30 or 5m (default: 2m)", durationMs)
    .action(action(io, waitVm));
}
