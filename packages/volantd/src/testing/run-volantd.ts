/** The real volantd in a folder of its own, with a network that it does not touch and a hypervisor that only tells its version. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { within } from "../../../../test/patience.ts";

export interface RunningVolantd {
  readonly address: string;
  /** Everything of it is in here: database, runtime folder, logs, images. */
  readonly directory: string;
  /** What it has written on standard error so far. */
  log(): string;
  /** Ends it and removes its folder. */
  close(): Promise<void>;
}

/** Starts it. @param env settings of its own @throws Error with its exit code and what it said, where it does not start */
export async function runVolantd(env: Readonly<Record<string, string>> = {}): Promise<RunningVolantd> {
  const directory = mkdtempSync(join(tmpdir(), "volantd-"));
  const qemu = join(directory, "qemu");
  writeFileSync(qemu, "#!/bin/sh\necho QEMU emulator version 7.2.0\n", { mode: 0o755 });
  mkdirSync(join(directory, "work/kernel"), { recursive: true });
  for (const name of ["bzImage", "vmlinux"]) writeFileSync(join(directory, "work/kernel", name), "");
  const child = spawn(process.execPath, [join(import.meta.dirname, "../main.ts")], {
    env: {
      PATH: process.env["PATH"],
      HOME: directory,
      VOLANT_API_LISTEN: "127.0.0.1:0",
      VOLANT_WORK_DIR: join(directory, "work"),
      VOLANT_HYPERVISOR: qemu,
      VOLANT_NETWORK: "noop",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (log += text));
  const ended = once(child, "close");
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  void ended.then(([code]) => reject(new Error(`volantd ended with ${String(code)}: ${log}`)));
  createInterface({ input: child.stdout }).on("line", (line) => {
    const address = /^volantd: listening on (.+)$/.exec(line)?.[1];
    if (address !== undefined) resolve(address);
  });
  let address: string;
  try {
    address = await within(promise, "volantd that listens", () => log);
  } catch (error) {
    child.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
  return {
    address,
    directory,
    log: () => log,
    async close() {
      child.kill("SIGTERM");
      try {
        await within(ended, "volantd's end", () => log);
      } finally {
        child.kill("SIGKILL");
        rmSync(directory, { recursive: true, force: true });
      }
    },
  };
}
