/** The logs of workloads, for whoever reads them: stored lines first, then new ones as they are written. */
import { VolantError } from "@volant/contract";
import type { Store } from "../store/store.ts";
import { cursorOf, moveTo, moveToTail, openLog, parseStored, readLines, type LogPlace } from "./log-reader.ts";
import type { LogOptions, LogUseCases, StoredLogLine } from "./use-cases.ts";
import { findVm } from "./find-vm.ts";
import type { WorkloadLogs } from "./workload-logs.ts";

/** A reader that begins in the middle of so many rotations is only unlucky once. */
const OPEN_ATTEMPTS = 10;

type Logs = Pick<WorkloadLogs, "paths" | "watch" | "flush">;

export class LogService implements LogUseCases {
  readonly #store: Pick<Store, "findVm">;
  readonly #logs: Logs;

  constructor(options: { readonly store: Pick<Store, "findVm">; readonly logs: Logs }) {
    this.#store = options.store;
    this.#logs = options.logs;
  }

  read(name: string, options: LogOptions): AsyncIterable<StoredLogLine> {
    findVm(this.#store, name);
    return this.#read(name, options);
  }

  async *#read(name: string, options: LogOptions): AsyncGenerator<StoredLogLine> {
    const news = new News(options.signal);
    // Before anything is read, so that nothing is missed in between.
    const unwatch = this.#logs.watch(name, (what) => news.tell(what));
    const places: LogPlace[] = [];
    try {
      await this.#logs.flush(name);
      const lost = await this.#begin(name, options, places);
      let time = places[0]?.modified.toISOString() ?? new Date(0).toISOString();
      if (lost) yield remark(name, time, "lines before these are gone", options.after ?? "");
      while (!options.signal.aborted) {
        const place = places[0];
        if (place !== undefined) {
          for await (const text of readLines(place)) {
            const line = parseStored(name, text, time);
            if (line === undefined) continue;
            time = line.timestamp;
            yield { line, cursor: await cursorOf(place) };
            if (options.signal.aborted) return;
          }
        }
        if (places.length > 1) {
          await places.shift()?.file.close();
          continue;
        }
        if (!options.follow) return;
        if (news.removed) throw new VolantError("not_found", `VM "${name}" was deleted`);
        if (await this.#advance(name, places)) continue;
        await news.wait();
      }
    } finally {
      unwatch();
      for (const { file } of places) await file.close();
    }
  }

  /** Opens what is to be read. @returns whether lines after the cursor are gone */
  async #begin(name: string, { after, tail }: LogOptions, places: LogPlace[]): Promise<boolean> {
    places.push(...(await this.#openBoth(name)));
    if (after !== undefined) {
      for (const [index, place] of places.entries()) {
        if (!(await moveTo(place, after))) continue;
        for (const { file } of places.splice(0, index)) await file.close();
        return false;
      }
      return true;
    }
    if (tail === undefined) return false;
    let wanted = tail;
    for (const place of places.toReversed()) wanted = await moveToTail(place, wanted);
    return false;
  }

  /** The files that there are, the older one first. */
  async #openBoth(name: string): Promise<LogPlace[]> {
    const [present, before] = this.#logs.paths(name);
    for (let attempt = 1; ; attempt += 1) {
      const newer = await openLog(present);
      const older = await openLog(before);
      // Rotated in between: what was opened first is the older one now.
      const rotated = newer !== undefined && newer.inode === older?.inode;
      if (!rotated || attempt === OPEN_ATTEMPTS) return [older, newer].filter((place) => place !== undefined);
      await newer.file.close();
      await older?.file.close();
    }
  }

  /** Goes on to the next file, where the one that was read is full. @returns whether there may be something to read */
  async #advance(name: string, places: LogPlace[]): Promise<boolean> {
    const [present, before] = this.#logs.paths(name);
    const place = places[0];
    const newer = await openLog(present);
    if (newer === undefined) return false;
    if (newer.inode === place?.inode) {
      await newer.file.close();
      return false;
    }
    if (place !== undefined) {
      const older = await openLog(before);
      await older?.file.close();
      if (older?.inode !== place.inode) {
        await newer.file.close();
        throw new VolantError("rate_limited", "the log grew faster than this reader took it, and it was cut off", {
          hint: "read less at a time with --tail, or read faster",
        });
      }
    }
    // The one that was read may have got its last lines after it was read to its end: it is read once more.
    places.push(newer);
    return true;
  }
}

function remark(name: string, timestamp: string, line: string, cursor: string): StoredLogLine {
  return { line: { name, stream: "volantd", line, timestamp }, cursor };
}

/** Whether something happened since it was last waited for. */
class News {
  removed = false;
  #fresh = false;
  #wake = () => {};

  constructor(signal: AbortSignal) {
    signal.addEventListener("abort", () => this.tell("written"), { once: true });
    if (signal.aborted) this.#fresh = true;
  }

  tell(what: "written" | "removed"): void {
    if (what === "removed") this.removed = true;
    this.#fresh = true;
    this.#wake();
  }

  async wait(): Promise<void> {
    if (!this.#fresh) await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#fresh = false;
  }
}
