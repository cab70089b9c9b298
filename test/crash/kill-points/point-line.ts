/**
 * The points at which volantd can be killed, found while it runs: every `await` of its own code, as it begins to wait and before it goes on; and what changes the
 * world without waiting (SQL that writes, a program's start, a signal, a file), before and after. Nothing names them in advance: code that awaits has a point.
 *
 * Awaits are told by the engine's promise hooks (nodejs.org/api/v8.html#promise-hooks): a reaction has a parent, and is begun at the await's place.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promiseHooks } from "node:v8";
import { pointName } from "./point-name.ts";
import type { FindSource, SourcePlace } from "./source-place.ts";

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
  readonly #packages: string;
  readonly #find: FindSource;
  readonly #places = new Map<string, SourcePlace | undefined>();
  readonly #sources = new Map<string, string>();
  readonly #names = new Map<string, string>();
  readonly #die = process.kill.bind(process, process.pid, "SIGKILL");
  #order: Order = { do: "rest" };
  #counts = new Map<string, number>();
  #seen: SeenPoint[] = [];
  #moment = 0;
  /** The world may be another than at the last point. */
  #hasChanged = true;

  /**
   * @param packages the folder of the sources of volantd's own code
   * @param find tells what of the code that runs is volantd's own
   */
  constructor(packages: string, find: FindSource) {
    this.#packages = packages;
    this.#find = find;
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
        const place = frame && this.#placeOf(frame);
        if (frame === undefined || place === undefined) return;
        const name = this.#nameOf(frame, place, true);
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
    for (const frame of this.#frames(FRAMES)) {
      const place = this.#placeOf(frame);
      if (place !== undefined) return `${this.#nameOf(frame, place, false)} ${what}`.trim();
    }
    return undefined;
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

  /** Where in volantd's own sources a frame is; undefined for one of other code. */
  #placeOf(frame: NodeJS.CallSite): SourcePlace | undefined {
    const url = frame.getFileName();
    const line = frame.getLineNumber();
    const column = frame.getColumnNumber();
    if (url === null || url === undefined || line === null || column === null) return undefined;
    const key = `${url} ${line} ${column}`;
    if (!this.#places.has(key)) this.#places.set(key, this.#find(url, line, column));
    return this.#places.get(key);
  }

  #nameOf(frame: NodeJS.CallSite, { file, line }: SourcePlace, isAwait: boolean): string {
    const functionName = frame.getFunctionName() ?? "(anonymous)";
    const key = `${file} ${functionName} ${line} ${isAwait}`;
    let name = this.#names.get(key);
    if (name === undefined) {
      let source = this.#sources.get(file);
      if (source === undefined) {
        source = readFileSync(join(this.#packages, file), "utf8");
        this.#sources.set(file, source);
      }
      name = pointName({ file, functionName, line, isAwait }, source);
      this.#names.set(key, name);
    }
    return name;
  }
}
