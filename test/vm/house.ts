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
import { PATIENCE_MS, fetchInTime, within } from "../patience.ts";

export const root = join(import.meta.dirname, "../..");
/** The folder of `volantd` and `volar`: laid out as the package is, where `npm test` has done that, which start with half the processor time; else this checkout's. */
export const testedPrograms = process.env["VOLANT_TEST_PROGRAMS"] ?? join(root, "bin");
const installedKernel = join(root, ".cache/volant/kernel");

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command of volar's waits for a guest's boot, and `npm start` for the set-up. */
const PROGRAM_PATIENCE_MS = 3 * PATIENCE_MS;

/** Runs a program to its end. */
export async function runProgram(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
  cwd?: string,
): Promise<Finished> {
  const child = spawn(program, args, { env, cwd, stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  const what = `the end of ${[program, ...args].join(" ")}`;
  try {
    const code = await within(ended, what, () => stdout + stderr, PROGRAM_PATIENCE_MS);
    return { code, stdout, stderr };
  } finally {
    child.kill("SIGKILL");
  }
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

/** volantd's own in the runtime and log folders: the API's socket, and the audit log. */
const OWN_ENTRIES = ["api.sock", "audit.jsonl", "audit.jsonl.1"];

/** What a runtime or log folder holds that is of VMs. */
export function vmEntries(directory: string | undefined): string[] {
  return readdirSync(directory ?? "").filter((name) => !OWN_ENTRIES.includes(name));
}

export interface HouseOptions {
  /** The folder of the programs `volantd` and `volar`; {@link testedPrograms} by default. */
  readonly programs?: string;
  /** Added to the environment of volantd and volar. */
  readonly env?: Readonly<Record<string, string>>;
  /** Flags for `volar setup`; undefined leaves the host as it is. */
  readonly setup?: readonly string[] | undefined;
}

export class House {
  readonly directory: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly #programs: string;
  #volantd: ChildProcess | undefined;
  #log = "";

  constructor(env: Readonly<Record<string, string>>, programs: string = testedPrograms) {
    this.#programs = programs;
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

  /** Resolves once volantd has logged what matches, from `from` characters of its log on. */
  async logged(pattern: RegExp, from = 0): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    while (!pattern.test(this.#log.slice(from))) {
      if (performance.now() > deadline)
        throw new Error(`volantd did not log ${pattern}: ${this.#log.slice(from).slice(-2000)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  get volantdPid(): number {
    const pid = this.#volantd?.pid;
    assert.ok(pid !== undefined, "volantd runs");
    return pid;
  }

  volar(...args: string[]): Promise<Finished> {
    return runProgram(join(this.#programs, "volar"), args, this.environment);
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
    const [program = "", ...args] = [...wrapper, join(this.#programs, "volantd")];
    const child = spawn(program, args, { env: this.environment, stdio: ["ignore", "pipe", "pipe"] });
    this.#volantd = child;
    child.stderr.setEncoding("utf8").on("data", (text: string) => (this.#log += text));
    const listening = new Promise<void>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code) => reject(new Error(`volantd ended with exit code ${code}: ${this.#log}`)));
      createInterface({ input: child.stdout }).on("line", (line) => {
        if (line.startsWith("volantd: listening on ")) resolve();
      });
    });
    await within(listening, "volantd that listens", () => this.#log.slice(-4000));
  }

  /** Ends volantd with a signal; its VMs go on. */
  async stopVolantd(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const child = this.#volantd;
    this.#volantd = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    try {
      await within(ended, `volantd's end by ${signal}`, () => this.#log.slice(-4000));
    } finally {
      child.kill("SIGKILL");
    }
  }

  /** Pids of the hypervisors that carry this installation's mark, read from the kernel and not from volantd. */
  async hypervisors(): Promise<number[]> {
    const { installation } = await this.api<{ readonly installation: string }>("/api/v1/system/info");
    return findProcesses(`volant:${installation}:`);
  }

  /** GET from volantd; the answer must be a success. */
  async api<T>(path: string): Promise<T> {
    const base = this.environment["VOLANT_API_BASE"] ?? "http://127.0.0.1:7777";
    const response = await fetchInTime(base + path);
    assert.equal(response.ok, true, `GET ${path}: ${response.status}`);
    return (await response.json()) as T;
  }

  /** Deletes every deployment that has VMs, and every VM, stops volantd, undoes the set-up and removes the files. */
  async close(): Promise<void> {
    if (this.#volantd !== undefined) {
      const deployments = new Set((await this.vms()).flatMap((vm) => vm.deployment ?? []));
      if (deployments.size > 0) await this.volarDone("deployments", "delete", ...deployments);
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
  const house = new House(options.env ?? {}, options.programs);
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
