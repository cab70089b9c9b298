/**
 * Keeps volantd from spinning while it may open less than it has open. A client that waits to be let in wakes the event loop then, can't be let in, and wakes it
 * again at once: libuv's way out, which gives one descriptor up to turn a client away, needs a limit above what is open, and nobody is told. So it is noticed by
 * the loop that never sleeps, and the loop is made to sleep a little in each turn. What else there is to do goes on, and the client waits in the kernel's queue.
 */
import { closeSync, openSync } from "node:fs";
import { performance, type EventLoopUtilization } from "node:perf_hooks";

export interface BrakeOptions {
  readonly warn: (message: string) => void;
  /** How often to look. Default: 1 s. */
  readonly everyMs?: number;
}

const EVERY_MS = 1000;
/** A loop that has so much to do may be spinning; one that sleeps now and then is not. */
const BUSY = 0.9;
/** 50 turns in a second cost next to nothing, and are often enough for VMs that are to be looked after. */
const PAUSE_MS = 20;

/** Whether this process can't have one more descriptor. */
function isOut(): boolean {
  try {
    closeSync(openSync("/", "r"));
    return false;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "EMFILE" || code === "ENFILE";
  }
}

/** Looks until it is closed. */
export function brakeWithoutDescriptors({ warn, everyMs = EVERY_MS }: BrakeOptions): { close(): void } {
  const nothing = new Int32Array(new SharedArrayBuffer(4));
  let before: EventLoopUtilization = performance.eventLoopUtilization();
  let isBraking = false;
  let isClosed = false;

  const turn = (): void => {
    if (!isBraking || isClosed) return;
    Atomics.wait(nothing, 0, 0, PAUSE_MS);
    setImmediate(turn);
  };
  const look = (): void => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, before);
    before = now;
    // A loop that is held up never sleeps either: it is let go by what it can open alone.
    const shouldBrake = (isBraking || utilization > BUSY) && isOut();
    if (shouldBrake === isBraking) return;
    isBraking = shouldBrake;
    if (isBraking) setImmediate(turn);
    warn(
      isBraking
        ? "no descriptor is left for a client that waits: volantd goes slowly until it may open more (prlimit --nofile --pid <volantd's>)"
        : "there are descriptors again: volantd goes on as ever",
    );
  };
  const timer = setInterval(look, everyMs).unref();
  return {
    close: () => {
      isClosed = true;
      clearInterval(timer);
    },
  };
}
