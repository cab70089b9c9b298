/**
 * A whole Volant of a test's own: a set-up host (the test's network namespace), volantd, and `volar` to talk to it, with the same programs and
 * settings that a user has. Call `enterOwnNamespace` first.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Vm } from "@volant/contract";

export const root = join(import.meta.dirname, "../..");
const installedKernel = join(root, ".cache/volant/kernel");

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. */
export async function runProgram(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<Finished> {
  const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  return { code, stdout, stderr };
}

/** Pids of live processes whose argument list contains `text`. */
export function findProcesses(text: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(text);
      } catch {
        return false;
      }
    });
}

export interface HouseOptions {
  /** Added to the environment of volantd and volar. */
  readonly env?: Readonly<Record<string, string>>;
  /** Flags for `volar setup`; undefined leaves the host as it is. */
  readonly setup?: readonly string[] | undefined;
}

export class House {
  readonly directory: string;
  readonly environment: NodeJS.ProcessEnv;
  #volantd: ChildProcess | undefined;
  #log = "";

  constructor(env: Readonly<Record<string, string>>) {
    this.directory = mkdtempSync(join(tmpdir(), "house-"));
    this.environment = {
      ...process.env,
      VOLANT_RUNTIME_DIR: join(this.directory, "run"),
      VOLANT_LOG_DIR: join(this.directory, "logs"),
      VOLANT_DB_PATH: join(this.directory, "state.db"),
      VOLANT_WORK_DIR: join(this.directory, "work"),
      ...env,
    };
    mkdirSync(join(this.directory, "work"));
    assert.ok(existsSync(installedKernel), "a kernel is installed for the tests; npm test does that first");
    cpSync(installedKernel, join(this.directory, "work/kernel"), { recursive: true });
  }

  /** What volantd has said so far on its standard error. */
  get log(): string {
    return this.#log;
  }

  get volantdPid(): number {
    const pid = this.#volantd?.pid;
    assert.ok(pid !== undefined, "volantd runs");
    return pid;
  }

  volar(...args: string[]): Promise<Finished> {
    return runProgram(join(root, "bin/volar"), args, this.environment);
  }

  /** What `volar … --output json` prints, parsed; the command must succeed. */
  async volarJson<T>(...args: string[]): Promise<T> {
    const result = await this.volar(...args, "--output", "json");
    assert.equal(result.code, 0, `volar ${args.join(" ")}: ${result.stderr}`);
    return JSON.parse(result.stdout) as T;
  }

  /** Runs `volar`, which must succeed. */
  async volarDone(...args: string[]): Promise<string> {
    const result = await this.volar(...args);
    assert.equal(result.code, 0, `volar ${args.join(" ")}: ${result.stderr}\nvolantd said:\n${this.#log.slice(-4000)}`);
    return result.stdout;
  }

  vms(): Promise<Vm[]> {
    return this.volarJson<Vm[]>("vms", "list");
  }

  /**
   * Starts volantd; resolves when it says that it listens.
   *
   * @param wrapper a program and its arguments to run it through, which must replace itself by it
   */
  async startVolantd(wrapper: readonly string[] = []): Promise<void> {
    const [program = "", ...args] = [...wrapper, join(root, "bin/volantd")];
    const child = spawn(program, args, { env: this.environment, stdio: ["ignore", "pipe", "pipe"] });
    this.#volantd = child;
    child.stderr.setEncoding("utf8").on("data", (text: string) => (this.#log += text));
    await new Promise<void>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code) => reject(new Error(`volantd ended with exit code ${code}: ${this.#log}`)));
      createInterface({ input: child.stdout }).on("line", (line) => {
        if (line.startsWith("volantd: listening on ")) resolve();
      });
    });
  }

  /** Ends volantd with a signal; its VMs go on. */
  async stopVolantd(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const child = this.#volantd;
    this.#volantd = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }

  /** Pids of the hypervisors that carry this installation's mark, read from the kernel and not from volantd. */
  async hypervisors(): Promise<number[]> {
    const { installation } = await this.api<{ readonly installation: string }>("/api/v1/system/info");
    return findProcesses(`volant:${installation}:`);
  }

  /** GET from volantd; the answer must be a success. */
  async api<T>(path: string): Promise<T> {
    const base = this.environment["VOLANT_API_BASE"] ?? "http://127.0.0.1:7777";
    const response = await fetch(base + path);
    assert.equal(response.ok, true, `GET ${path}: ${response.status}`);
    return (await response.json()) as T;
  }

  /** Deletes every VM, stops volantd, undoes the set-up and removes the files. */
  async close(): Promise<void> {
    if (this.#volantd !== undefined) {
      const names = (await this.vms()).map((vm) => vm.name);
      if (names.length > 0) await this.volarDone("vms", "delete", ...names);
      await this.stopVolantd();
    }
    await this.volarDone("setup", "--undo");
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A house whose host is set up and whose volantd answers. */
export async function openHouse(options: HouseOptions = {}): Promise<House> {
  const house = new House(options.env ?? {});
  try {
    await house.volarDone("setup", "--service-file", "", ...(options.setup ?? []));
    await house.startVolantd();
  } catch (error) {
    await house.stopVolantd();
    rmSync(house.directory, { recursive: true, force: true });
    throw error;
  }
  return house;
}
