/** Gives back what bursts of work leave over, for as long as volantd runs. */
import { runInNewContext } from "node:vm";
import { SpareMemory } from "./spare-memory.ts";

const LOOK_EVERY_MS = 1000;

/** @returns ends it */
export function keepMemoryLow(): () => void {
  const spare = new SpareMemory();
  let loop = performance.eventLoopUtilization();
  const timer = setInterval(() => {
    const now = performance.eventLoopUtilization();
    const busy = performance.eventLoopUtilization(now, loop).utilization;
    loop = now;
    const rssBytes = residentBytes();
    if (rssBytes === undefined) return;
    const work = spare.look({ nowMs: performance.now(), rssBytes, busy });
    if (work === "collect") collect();
    if (work === "trim") void trim();
  }, LOOK_EVERY_MS);
  timer.unref();
  return () => clearInterval(timer);
}

/** Undefined where no file can be opened to read it from: a process that is out of descriptors has other cares. */
function residentBytes(): number | undefined {
  try {
    return process.memoryUsage.rss();
  } catch {
    return undefined;
  }
}

/**
 * A collection alone gives nothing back. V8 takes the end of a context for a sign of much garbage, though, and from 8 s later on shrinks its heap bit by bit, if there is little to do
 * (Heap::NotifyContextDisposed, MemoryReducer): so one is made for nothing, and collected. Where Node was not told to offer the latter (--expose-gc), V8 has its own time.
 */
function collect(): void {
  if (globalThis.gc === undefined) return;
  runInNewContext("0");
  globalThis.gc();
}

async function trim(): Promise<void> {
  // Loaded when it is used: never off Linux.
  const { returnFreeMemory } = await import("@volant/netlink");
  await returnFreeMemory();
}
