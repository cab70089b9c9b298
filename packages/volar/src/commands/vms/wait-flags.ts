import { Option, type Command } from "commander";
import { durationMs } from "../../values.ts";
import { DEFAULT_WAIT_MS } from "./wait-progress.ts";

export interface WaitFlags {
  readonly wait?: boolean;
  /** Milliseconds. */
  readonly waitTimeout?: number;
  /** Milliseconds. */
  readonly timeout?: number;
}

const TIMEOUT_HELP = "give up waiting after this time, such as 300 or 5m; what was asked for goes on";

/** How long `--wait` waits. */
export function waitLimitMs({ waitTimeout, timeout }: WaitFlags): number {
  return waitTimeout ?? timeout ?? DEFAULT_WAIT_MS;
}

/** For a command that waits unless it is told not to: undefined leaves the limit to volantd. */
export function patienceMs({ wait, timeout }: WaitFlags): number | undefined {
  return wait === false ? 0 : timeout;
}

/** `--wait`, `--no-wait` and `--timeout` of a command that waits unless it is told not to. */
export function addPatienceOptions(command: Command, what: string): Command {
  return command
    .option("--wait", `wait until it is ${what}: the default`)
    .option("--no-wait", "don't wait")
    .option("--timeout <time>", TIMEOUT_HELP, durationMs);
}

/** `--wait` and `--wait=<time>`. The latter is {@link splitWait}'s other spelling, so that `--wait web` does not take the name for a time. */
export function addWaitOptions(command: Command): Command {
  return command
    .option("--wait", "wait until it runs; --wait=<time> such as --wait=300 or --wait=5m says how long (default: 2m)")
    .option("--timeout <time>", TIMEOUT_HELP, durationMs)
    .addOption(new Option("--wait-timeout <time>").argParser(durationMs).hideHelp());
}

/** `--wait=<time>` as the two flags that it stands for. Pure. */
export function splitWait(argv: readonly string[]): string[] {
  const end = argv.indexOf("--");
  return argv.flatMap((word, index) => {
    if (!word.startsWith("--wait=") || (end !== -1 && index > end)) return [word];
    return ["--wait", `--wait-timeout=${word.slice("--wait=".length)}`];
  });
}
