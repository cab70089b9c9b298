/** Finding and running the host's programs: by absolute path, with argument arrays, never through a shell. */
import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";

export interface ProgramResult {
  /** Exit status; undefined when the program was ended by a signal or by the time-out. */
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Programs of the administrator are not on everybody's PATH. */
const ADMIN_FOLDERS = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/** A program that hangs, on a lock that nobody gives back, is ended. */
const TIMEOUT_MS = 60_000;

/** The absolute path of a program on PATH or in the administrator's folders, or undefined when there is none. */
export async function findProgram(name: string): Promise<string | undefined> {
  const onPath = (process.env["PATH"] ?? "").split(delimiter).filter((folder) => isAbsolute(folder));
  for (const folder of [...onPath, ...ADMIN_FOLDERS]) {
    const path = join(folder, name);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder, or not for us.
    }
  }
  return undefined;
}

/**
 * Runs a program to its end. Its messages are in English, whatever the user's language: they are read.
 *
 * @param input what its standard input holds
 */
export async function runProgram(path: string, args: readonly string[], input = ""): Promise<ProgramResult> {
  const { promise, resolve, reject } = Promise.withResolvers<ProgramResult>();
  const options = { env: { ...process.env, LC_ALL: "C" }, timeout: TIMEOUT_MS, maxBuffer: 64 * 1024 * 1024 };
  const child = execFile(path, [...args], options, (error, stdout, stderr) => {
    if (error === null) resolve({ status: 0, stdout, stderr });
    else if (typeof error.code === "number") resolve({ status: error.code, stdout, stderr });
    else if (error.killed === true || error.signal !== undefined) resolve({ status: undefined, stdout, stderr });
    else reject(error);
  });
  // One that ends without reading says by its status what is wrong.
  child.stdin?.on("error", () => undefined).end(input);
  return await promise;
}

/** What a program complained of, as one line. */
export function complaint(result: ProgramResult): string {
  const text = result.stderr.trim().split("\n").at(-1) ?? "";
  if (text !== "") return text;
  return result.status === undefined ? "it did not end in time" : `it ended with status ${result.status}`;
}
