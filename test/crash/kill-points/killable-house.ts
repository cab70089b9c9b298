/** A house whose volantd can be killed at any of its points, and is replaced at once: the next one stands ready, with all its code loaded. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { isDeepStrictEqual } from "node:util";
import { ip, ipJson } from "../../namespace.ts";
import { root } from "../../vm/house.ts";
import { StandInHouse } from "../stand-in.ts";
import type { Order, SeenPoint } from "./point-line.ts";

const PROGRAM = join(import.meta.dirname, "killable-volantd.ts");
/** Loading makes many objects that stay: in a small room they are copied again and again (v8's own default is 1 MiB). */
const NODE_OPTIONS = ["--min-semi-space-size=16", "--max-semi-space-size=32"];
/** For what takes a fraction of a second on a quiet machine. */
const LIMIT_MS = 60_000;
const READY = "waits for its order";

/** The promise's outcome, unless it takes too long; `what` says what was waited for, and what was seen meanwhile. */
export async function within<T>(promise: Promise<T>, what: () => string, limitMs = LIMIT_MS): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${what()}: not within ${limitMs} ms`)), limitMs);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** One volantd: loaded, then started, then dead. */
class KillableVolantd {
  readonly #child: ChildProcess;
  readonly #control: string;
  readonly #listening = Promise.withResolvers<void>();
  readonly #loaded = Promise.withResolvers<void>();
  #connection: Socket | undefined;
  #answers: AsyncIterator<string> | undefined;
  #log = "";
  /** Resolves when it is gone. */
  readonly dead: Promise<void>;

  constructor(environment: NodeJS.ProcessEnv, control: string) {
    this.#control = control;
    const env = { ...environment, VOLANT_TEST_CONTROL: control };
    this.#child = spawn(process.execPath, [...NODE_OPTIONS, PROGRAM], { env, stdio: ["pipe", "pipe", "pipe"] });
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => (this.#log += text));
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      if (line === READY) this.#loaded.resolve();
      if (line.startsWith("volantd: listening on ")) this.#listening.resolve();
    });
    this.dead = new Promise((resolve) => {
      this.#child.once("exit", (code, signal) => {
        const error = new Error(`volantd ended (${signal ?? `exit code ${code}`}): ${this.#log.slice(-4000)}`);
        for (const wait of [this.#loaded, this.#listening]) wait.reject(error);
        resolve();
      });
    });
    for (const { promise } of [this.#loaded, this.#listening]) promise.catch(() => {});
  }

  get log(): string {
    return this.#log;
  }

  get isDead(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Resolves with what was seen before the order, once it is in force. */
  async order(order: Order): Promise<readonly SeenPoint[]> {
    await within(this.#loaded.promise, () => `volantd loads its code; it said: ${this.#log}`);
    if (this.#connection === undefined) {
      this.#connection = connect(this.#control);
      this.#connection.on("error", () => {});
      await once(this.#connection, "connect", { signal: AbortSignal.timeout(LIMIT_MS) });
      this.#answers = createInterface({ input: this.#connection })[Symbol.asyncIterator]();
    }
    this.#connection.write(`${JSON.stringify(order)}\n`);
    let answer: IteratorResult<string>;
    try {
      answer = await within(this.#answers?.next() as Promise<IteratorResult<string>>, () => "volantd takes an order");
    } catch (error) {
      // It died while the order was on its way, or right before.
      if (!["ECONNRESET", "EPIPE"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
      answer = { done: true, value: undefined };
    }
    if (answer.done === true) {
      await within(this.dead, () => "volantd, whose connection broke, is gone");
      // It was at the very point when the order came, and died before its answer was sent.
      if (order.do === "die") return [];
    }
    assert.ok(answer.done !== true, `volantd ended: ${this.#log.slice(-4000)}`);
    return JSON.parse(answer.value) as SeenPoint[];
  }

  /** Starts it under that order; resolves when it listens, or is dead. */
  async start(order: Order): Promise<void> {
    await this.order(order);
    const listening = order.do === "die" ? this.#listening.promise.catch(() => {}) : this.#listening.promise;
    await within(listening, () => `volantd listens; it said: ${this.#log.slice(-4000)}`);
  }

  async kill(): Promise<void> {
    if (!this.isDead) this.#child.kill("SIGKILL");
    await within(this.dead, () => "a killed volantd is gone");
    this.#connection?.destroy();
  }
}

export class KillableHouse {
  readonly at: StandInHouse;
  readonly #made: KillableVolantd[] = [];
  #current: KillableVolantd | undefined;
  #next: KillableVolantd | undefined;
  #added: Readonly<Record<string, string>> = {};

  /** No volantd runs yet; the host is set up and the plugin `probe` is installed. */
  static async open(): Promise<KillableHouse> {
    const at = await StandInHouse.open();
    await at.house.stopVolantd();
    // One of its own, so that what is left in it is seen.
    const temporary = join(at.house.directory, "tmp");
    mkdirSync(temporary);
    at.house.environment["TMPDIR"] = temporary;
    // The stand-in notes its starts where it finds this file; each VM's own user may write to it.
    writeFileSync(at.startsPath, "", { flag: "wx" });
    chmodSync(at.startsPath, 0o666);
    return new KillableHouse(at);
  }

  private constructor(at: StandInHouse) {
    this.at = at;
  }

  #make(): KillableVolantd {
    const compileCache = process.env["NODE_COMPILE_CACHE"] ?? join(root, ".cache/node-compile");
    const environment = { ...this.at.house.environment, NODE_COMPILE_CACHE: compileCache };
    const made = new KillableVolantd(environment, join(this.at.house.directory, `control-${this.#made.length}`));
    this.#made.push(made);
    return made;
  }

  /** The volantd that runs. */
  get volantd(): KillableVolantd {
    assert.ok(this.#current !== undefined, "volantd was started");
    return this.#current;
  }

  /** Starts volantd in place of one that is dead. */
  async start(order: Order = { do: "rest" }): Promise<void> {
    this.#current = this.#next ?? this.#make();
    // It loads while this one is at work.
    this.#next = this.#make();
    await this.#current.start(order);
  }

  /**
   * Those that stand ready are ended: the next one has this environment, and nothing of what the last call gave it.
   *
   * @returns whether that is another one than before
   */
  async setEnvironment(added: Readonly<Record<string, string>>): Promise<boolean> {
    if (isDeepStrictEqual(added, this.#added)) return false;
    const { environment } = this.at.house;
    for (const name of Object.keys(this.#added)) delete environment[name];
    Object.assign(environment, added);
    this.#added = added;
    await this.#next?.kill();
    this.#next = undefined;
    return true;
  }

  /** Ends volantd and what stands ready, undoes the set-up and removes the files. VMs must be gone. */
  async close(): Promise<void> {
    for (const volantd of [this.#current, this.#next]) await volantd?.kill();
    await this.at.close();
  }

  /** Ends everything at once, whatever its state, and takes it away: the network namespace is then as it was before. */
  async abandon(): Promise<void> {
    for (const volantd of this.#made) await volantd.kill();
    await this.at.abandon();
    const ours = (): string[] =>
      ipJson("link", "show")
        .map((link) => String(link["ifname"]))
        .filter((name) => /^(?:vttap-|vbr|volant-)/.test(name));
    for (let [name] = ours(); name !== undefined; [name] = ours()) ip("link", "delete", name);
    // With what VMs might send, which nobody takes out any more; the next house has VMs of the same names.
    execFileSync("nft", ["flush", "ruleset"]);
  }
}
