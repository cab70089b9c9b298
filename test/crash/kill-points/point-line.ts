/**
 * The points at which volantd can be killed, found while it runs: every `await` of its own code, as it begins to wait and before it goes on; and what changes the
 * world without waiting (SQL that writes, a program's start, a signal, a file), before and after. Nothing names them in advance: code that awaits has a point.
 *
 * Awaits are told by the engine's promise hooks (nodejs.org/api/v8.html#promise-hooks): a reaction has a parent, and is begun at the await's place.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promiseHooks } from "node:v8";
import { pointName } from "./point-name.ts";

export type Order =
  | { readonly do: "rest" }
  /** Forgets what was seen, and sees from now on. */
  | { readonly do: "record" }
  /** Ends the process at that point, counted from now on. */
  | { readonly do: "die"; readonly at: string };

/**
 * A point, and the number of the moment in which it was passed. A moment lasts while nothing outside changes: no file, nothing in the kernel, no process, nothing
 * that a guest or its hypervisor was told or has said. All that volantd has besides is in its memory, and dies with it; so a death is the same at each of a
 * moment's points.
 */
export type SeenPoint = readonly [point: string, moment: number];

/** Awaits of what others do, or the kernel; reads of it aside, which change nothing. */
const WORLDLY =
  /^(?:netlink\/src\/(?:child-process\.ts|transport\/(?:spawn\.ts|tun\.ts|socket\.ts #changeTogether))|volantd\/src\/(?:guest\/|runtime\/qemu\/(?:watch|qmp|tap)\.ts))/;

/** The outermost frames say nothing about whose await it is. */
const FRAMES = 12;

export class PointLine {
  readonly #root: string;
  readonly #sources = new Map<string, string>();
  readonly #names = new Map<string, string>();
  readonly #die = process.kill.bind(process, process.pid, "SIGKILL");
  #order: Order = { do: "rest" };
  #counts = new Map<string, number>();
  #seen: SeenPoint[] = [];
  #moment = 0;
  /** The world may be another than at the last point. */
  #hasChanged = true;

  /** @param root the repository's: code below its `packages` is volantd's own */
  constructor(root: string) {
    this.#root = root;
  }

  /** What was seen since the order to record, in order. */
  get seen(): readonly SeenPoint[] {
    return this.#seen;
  }

  obey(order: Order): void {
    this.#order = order;
    this.#counts = new Map();
    this.#seen = [];
  }

  /** Sees every await from now on. */
  watchAwaits(): void {
    const waits = new WeakMap<object, string>();
    promiseHooks.createHook({
      init: (promise: Promise<unknown>, parent: Promise<unknown> | undefined) => {
        if (parent === undefined) return;
        const [frame] = this.#frames(3);
        if (frame === undefined || !this.#isOurs(frame)) return;
        const name = this.#nameOf(frame, true);
        waits.set(promise, name);
        this.#pass(`${name} (waits)`);
      },
      before: (promise: Promise<unknown>) => {
        const name = waits.get(promise);
        if (name === undefined) return;
        waits.delete(promise);
        if (WORLDLY.test(name)) this.change();
        this.#pass(`${name} (goes on)`);
      },
    });
  }

  /** Does something that changes the world, with a point before and one after it. Others' doings are none of ours, and have no points. */
  effect<T>(what: string, act: () => T): T {
    const name = this.#nameOfDoing(what);
    if (name !== undefined) this.#pass(`${name} (before)`);
    const result = act();
    this.change();
    if (name !== undefined) this.#pass(`${name} (after)`);
    return result;
  }

  /** A point before something that changes nothing yet. */
  mark(what: string): void {
    const name = this.#nameOfDoing(what);
    if (name !== undefined) this.#pass(`${name} (before)`);
  }

  #nameOfDoing(what: string): string | undefined {
    if (this.#order.do === "rest") return undefined;
    const frame = this.#frames(FRAMES).find((other) => this.#isOurs(other));
    return frame === undefined ? undefined : `${this.#nameOf(frame, false)} ${what}`.trim();
  }

  /** Says that something outside has changed, or is about to at any time. */
  change(): void {
    this.#hasChanged = true;
  }

  #pass(name: string): void {
    if (this.#order.do === "rest") return;
    const count = (this.#counts.get(name) ?? 0) + 1;
    this.#counts.set(name, count);
    const point = count > 1 ? `${name} #${count}` : name;
    if (this.#order.do === "die") {
      if (this.#order.at === point) this.#die();
      return;
    }
    // A loop waits at the same place again and again: that is of interest where the world is another one.
    if (count > 1 && !this.#hasChanged) return;
    if (this.#hasChanged) this.#moment += 1;
    this.#hasChanged = false;
    this.#seen.push([point, this.#moment]);
  }

  #frames(limit: number): NodeJS.CallSite[] {
    const { stackTraceLimit, prepareStackTrace } = Error;
    Error.stackTraceLimit = limit;
    Error.prepareStackTrace = (_error, frames) => frames;
    const frames = new Error("where").stack as unknown as NodeJS.CallSite[];
    Error.prepareStackTrace = prepareStackTrace;
    Error.stackTraceLimit = stackTraceLimit;
    return frames.slice(2);
  }

  #isOurs(frame: NodeJS.CallSite): boolean {
    return frame.getFileName()?.startsWith(`file://${this.#root}/packages/`) === true;
  }

  #nameOf(frame: NodeJS.CallSite, isAwait: boolean): string {
    const url = frame.getFileName() ?? "";
    const line = frame.getLineNumber() ?? 1;
    const functionName = frame.getFunctionName() ?? "(anonymous)";
    const key = `${url} ${functionName} ${line} ${isAwait}`;
    let name = this.#names.get(key);
    if (name === undefined) {
      const path = fileURLToPath(url);
      let source = this.#sources.get(path);
      if (source === undefined) {
        source = readFileSync(path, "utf8");
        this.#sources.set(path, source);
      }
      const file = path.slice(this.#root.length + "/packages/".length);
      name = pointName({ file, functionName, line, isAwait }, source);
      this.#names.set(key, name);
    }
    return name;
  }
}
