/** Which events a reader wants. Pure. */
import type { VmEvent } from "@volant/contract";
import type { EventFilter } from "./use-cases.ts";

/** Whether an event is among those, its time apart. */
export function isWanted({ names, types }: EventFilter, { name, type }: VmEvent): boolean {
  return (names === undefined || names.includes(name)) && (types === undefined || types.includes(type));
}

/** Whether it is of the filter's time, or later. */
export function isSince({ sinceMs }: EventFilter, { timestamp }: VmEvent): boolean {
  return sinceMs === undefined || Date.parse(timestamp) >= sinceMs;
}
