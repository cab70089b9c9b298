/** Programs as a user runs them, to their end. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { within } from "../../../../test/patience.ts";

export const VOLAR_ENTRY = join(import.meta.dirname, "../main.ts");

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** All that the program sees of the environment, besides PATH. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Standard input. */
  readonly input?: string;
}

export async function runToEnd(command: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const { env = {}, cwd, input = "" } = options;
  const child = spawn(command, args, { cwd, env: { PATH: process.env["PATH"], ...env } });
  child.stdin.on("error", () => undefined).end(input);
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  try {
    const code = await within(ended, `the end of ${args.join(" ")}`, () => stdout + stderr);
    return { code, stdout, stderr };
  } finally {
    child.kill("SIGKILL");
  }
}

/** `volar …` */
export function runVolar(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  return runToEnd(process.execPath, [VOLAR_ENTRY, ...args], options);
}
