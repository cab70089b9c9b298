import { Option, type Command } from "commander";
import { durationMs } from "../../values.ts";

export interface WaitFlags {
  readonly wait?: boolean;
  /** Milliseconds. */
  readonly waitTimeout?: number;
}

/** `--wait` and `--wait=<time>`. The latter is {@link splitWait}'s other spelling, so that `--wait web` does not take the name for a time. */
export function addWaitOptions(command: Command): Command {
  return command
    .option("--wait", "wait until it runs; --wait=<time> such as --wait=300 or --wait=5m says how long (default: 2m)")
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
