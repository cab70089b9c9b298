/** Entries of a guest's log (docs/agent-protocol.md, "Log"), checked. Pure. */
import { asCount, asObject, asTime } from "./untrusted.ts";

/** One line of the workload's (or of the agent's about it). The text is as the workload wrote it, control characters included. */
export interface GuestLogLine {
  readonly kind: "line";
  /** Counts from 1 since the guest's boot. */
  readonly seq: number;
  readonly stream: "stdout" | "stderr" | "agent";
  readonly line: string;
  readonly timestamp: string;
  /** The line was longer than the agent keeps. */
  readonly truncated: boolean;
}

/** Lines that the guest no longer had. */
export interface GuestLogGap {
  readonly kind: "gap";
  readonly from: number;
  readonly to: number;
}

export type GuestLogEntry = GuestLogLine | GuestLogGap;

/** The agent cuts lines at 8 KiB; invalid bytes become three each. */
const MAX_LINE_LENGTH = 32 * 1024;

/** The entry that `sent` is; undefined when the guest sent something else. */
export function readLogEntry(sent: unknown): GuestLogEntry | undefined {
  const value = asObject(sent);
  const gap = asObject(value?.["gap"]);
  if (gap !== undefined) {
    const from = asCount(gap["from"]);
    const to = asCount(gap["to"]);
    return from === undefined || to === undefined || from > to ? undefined : { kind: "gap", from, to };
  }
  const seq = asCount(value?.["seq"]);
  const stream = value?.["stream"];
  const line = value?.["line"];
  const timestamp = asTime(value?.["timestamp"])?.toISOString();
  if (seq === undefined || timestamp === undefined || typeof line !== "string" || line.length > MAX_LINE_LENGTH)
    return undefined;
  if (stream !== "stdout" && stream !== "stderr" && stream !== "agent") return undefined;
  return { kind: "line", seq, stream, line, timestamp, truncated: value?.["truncated"] === true };
}
