/**
 * The stand-in hypervisor (test/stand-in), for a house with many VMs: its guests run nothing, and are healthy at once. What a guest is to do wrong is said by
 * words of its `kernel_cmdline`, such as `standin.panic_after_ms=100`; test/stand-in/src/faults.rs has them all.
 */
import assert from "node:assert/strict";
import { chmodSync, copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import type { Vm } from "@volant/contract";
import { ip, ipJson } from "../namespace.ts";
import { PATIENCE_MS } from "../patience.ts";
import { findProcesses, House, openHouse, root, vmEntries } from "../vm/house.ts";
import { buildProbePlugin } from "../vm/probe-plugin.ts";

const built = join(root, "kestrel/target/x86_64-unknown-linux-gnu/release/volant-stand-in");
/** Room for 65,533 VMs. */
const SUBNET = { VOLANT_SUBNET: "10.77.0.0/16", VOLANT_HOST_IP: "10.77.0.1" };
/** Longer than any deadline of volantd's own. */
const ANSWER_LIMIT_MS = 120_000;
/** For what comes about. */
const LIMIT_MS = 120_000;

/** A copy of the program where a VM's own user may execute it; remove `folder` afterwards. */
export function installStandIn(): { readonly path: string; readonly folder: string } {
  assert.ok(existsSync(built), "the stand-in hypervisor is built; npm test does that first");
  const folder = mkdtempSync(join(tmpdir(), "stand-in-"));
  chmodSync(folder, 0o755);
  const path = join(folder, "volant-stand-in");
  copyFileSync(built, path);
  return { path, folder };
}

/** So many of them, and which. */
const counted = (names: readonly string[], what: string): string =>
  names.length === 0 ? `0 ${what}` : `${names.length} ${what}: ${names.slice(0, 5).join(", ")}`;

/** What is left of VMs on the host and in the store, one line each; read from there, and not from volantd. */
export function leaks(house: House, installation: string): string[] {
  const database = new DatabaseSync(house.environment["VOLANT_DB_PATH"] ?? "", { readOnly: true });
  const count = (query: string): number => Number(database.prepare(query).get()?.["count"]);
  const rows = [
    `${count("SELECT count(*) AS count FROM vms")} rows of VMs`,
    `${count("SELECT count(*) AS count FROM leases WHERE vm_id IS NOT NULL")} leases`,
  ];
  database.close();
  const taps = ipJson("link", "show").map((link) => String(link["ifname"]));
  const found = [
    `${taps.filter((name) => name.startsWith("vttap-")).length} taps`,
    `${findProcesses(`volant:${installation}:`).length} processes`,
    counted(vmEntries(house.environment["VOLANT_RUNTIME_DIR"]), "runtime folders"),
    counted(vmEntries(house.environment["VOLANT_LOG_DIR"]), "logs"),
    `${ip("neigh", "show", "nud", "permanent", "dev", "vbr0").split("\n").length - 1} neighbour entries`,
  ];
  return [...rows, ...found].filter((line) => !line.startsWith("0 "));
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Runs the tasks, so many at a time. */
export async function inParallel<T>(
  width: number,
  items: readonly T[],
  task: (item: T) => Promise<void>,
): Promise<void> {
  const rest = [...items];
  const work = async (): Promise<void> => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await task(item);
  };
  await Promise.all(Array.from({ length: width }, work));
}

/** How long it takes to be seen that an agent is attached, which no event tells. */
const LOOK_EVERY_MS = 100;

/**
 * When to look whether something has come about: now and after every event of VMs. Ends when the stream of events does.
 *
 * @param isOften whether to look every now and then besides
 * @throws the signal's reason
 */
async function* looks(signal: AbortSignal, isOften: boolean): AsyncGenerator<void, void> {
  const left = new AbortController();
  const { body } = await fetch("http://127.0.0.1:7777/api/v1/events/vms", {
    signal: AbortSignal.any([signal, left.signal]),
  });
  const reader = body?.getReader();
  const read = async (): Promise<"end" | "news"> => ((await reader?.read())?.done === false ? "news" : "end");
  try {
    let next = read();
    let what: "end" | "news" | "nothing" = await next;
    while (what !== "end") {
      if (what === "news") next = read();
      next.catch(() => {});
      yield;
      what = await Promise.race([next, ...(isOften ? [sleep(LOOK_EVERY_MS, "nothing" as const)] : [])]);
    }
  } finally {
    left.abort();
  }
}

/** It runs, its agent is attached, and there is nothing to say of it. */
export function isUp({ status, agent, reason }: Vm): boolean {
  return status === "running" && agent.attached && reason === undefined;
}

/** A house whose hypervisor is the stand-in, with the plugin `probe`. */
export class StandInHouse {
  readonly house: House;
  readonly installation: string;
  readonly #folder: string;

  /**
   * @param env added to the environment of volantd and volar
   * @param programs the folder of those two, where they are not the tests' own
   */
  static async open(env: Readonly<Record<string, string>> = {}, programs?: string): Promise<StandInHouse> {
    const { path, folder } = installStandIn();
    try {
      const house = await openHouse({
        env: { VOLANT_HYPERVISOR: path, ...SUBNET, ...env },
        ...(programs === undefined ? {} : { programs }),
      });
      const { installation } = await house.api<{ readonly installation: string }>("/api/v1/system/info");
      await house.volarDone("plugins", "install", buildProbePlugin(join(house.directory, "work")));
      return new StandInHouse(house, installation, folder);
    } catch (error) {
      rmSync(folder, { recursive: true });
      throw error;
    }
  }

  private constructor(house: House, installation: string, folder: string) {
    this.house = house;
    this.installation = installation;
    this.#folder = folder;
  }

  /** Asks volantd, whatever it answers. */
  request(
    method: string,
    path: string,
    body?: object,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Response> {
    return fetch(`http://127.0.0.1:7777/api/v1/${path}`, {
      method,
      signal: AbortSignal.timeout(ANSWER_LIMIT_MS),
      headers: { ...headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }

  /** Asks volantd; the answer must have this status. Returns its body, or undefined when it has none. */
  async ask<T>(status: number, method: string, path: string, body?: object): Promise<T> {
    const response = await this.request(method, path, body);
    const text = await response.text();
    assert.equal(response.status, status, `${method} ${path}: ${text}`);
    return (text === "" ? undefined : JSON.parse(text)) as T;
  }

  create(name: string, kernelCmdline = ""): Promise<Vm> {
    const words = kernelCmdline === "" ? {} : { kernel_cmdline: kernelCmdline };
    return this.ask<Vm>(201, "POST", "vms", { name, plugin: "probe", memory_mb: 96, ...words });
  }

  async delete(name: string): Promise<void> {
    await this.ask(204, "DELETE", `vms/${name}`);
  }

  list(): Promise<Vm[]> {
    return this.ask<Vm[]>(200, "GET", "vms");
  }

  /**
   * Looks at all VMs now and after every event, until `done` holds for them.
   *
   * @throws Error with what was seen last, after `limitMs`
   */
  until(done: (vms: readonly Vm[]) => boolean, limitMs = LIMIT_MS): Promise<void> {
    return this.#until(done, limitMs, false);
  }

  /** As {@link until}, for what waits for agents to be attached: that is no event, and is looked for every now and then. */
  untilAttached(done: (vms: readonly Vm[]) => boolean): Promise<void> {
    return this.#until(done, LIMIT_MS, true);
  }

  async #until(done: (vms: readonly Vm[]) => boolean, limitMs: number, isOften: boolean): Promise<void> {
    const signal = AbortSignal.timeout(limitMs);
    let vms: readonly Vm[] = [];
    try {
      for await (const _ of looks(signal, isOften)) {
        vms = await this.list();
        if (done(vms)) return;
      }
    } catch (error) {
      const seen = vms.map(({ name, status, reason }) => `${name} ${status} (${reason ?? "no reason"})`);
      throw new Error(`not so within ${limitMs} ms: ${seen.slice(0, 30).join(", ")}`, { cause: error });
    }
    throw new Error("the stream of events ended");
  }

  /** Waits until the VM of a name is as `isSo` says, and gives it as it was then. @throws as {@link until} */
  async untilVm(name: string, isSo: (vm: Vm) => boolean): Promise<Vm> {
    let found: Vm | undefined;
    await this.until((vms) => {
      found = vms.find((vm) => vm.name === name);
      return found !== undefined && isSo(found);
    });
    assert.ok(found !== undefined);
    return found;
  }

  /** As {@link untilVm}, until it {@link isUp}, and as `isSo` says besides. */
  async untilUp(name: string, isSo: (vm: Vm) => boolean = () => true): Promise<Vm> {
    let found: Vm | undefined;
    await this.untilAttached((vms) => {
      found = vms.find((vm) => vm.name === name);
      return found !== undefined && isUp(found) && isSo(found);
    });
    assert.ok(found !== undefined);
    return found;
  }

  /** Where the stand-in notes each of its starts, `<mark> <pid>`, if the file is there. */
  get startsPath(): string {
    return join(this.#folder, "starts");
  }

  /** What serves vsock devices, where a VM's own user may execute it. @returns its path */
  installVsockBackend(): string {
    const path = join(this.#folder, "vhost-device-vsock");
    if (existsSync(path)) return path;
    const program = join(root, ".toolchain/vhost-device-vsock/bin/vhost-device-vsock");
    assert.ok(existsSync(program), "vhost-device-vsock is built; npm test does that first");
    copyFileSync(program, path);
    return path;
  }

  leaks(): string[] {
    return leaks(this.house, this.installation);
  }

  async close(): Promise<void> {
    await this.house.close();
    rmSync(this.#folder, { recursive: true });
  }

  /** For whoever is interrupted: ends every process at once and removes the files. What is left goes with the network namespace. */
  async abandon(): Promise<void> {
    await this.house.stopVolantd("SIGKILL");
    const deadline = performance.now() + PATIENCE_MS;
    for (let pids = this.#guests(); pids.length > 0; pids = this.#guests()) {
      if (performance.now() > deadline) throw new Error(`killed, and still there: ${pids.join(", ")}`);
      for (const pid of pids) killIfThere(pid);
      await sleep(10);
    }
    for (const folder of [this.#folder, this.house.directory]) rmSync(folder, { recursive: true, force: true });
  }

  #guests(): number[] {
    return findProcesses(`volant:${this.installation}:`);
  }
}
