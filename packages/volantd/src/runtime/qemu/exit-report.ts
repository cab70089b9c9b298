/** Why a QEMU ended, in a word and in a sentence. Pure. */
import { TAIL_LINES } from "../console-log.ts";
import type { ExitReport } from "../runtime.ts";

/** What was learned of the end of one generation of a VM, while volantd was looking. */
export interface ExitRecord {
  readonly generation: number;
  /** `reason` of QMP's SHUTDOWN event: a ShutdownCause of QEMU's qapi/run-state.json. */
  readonly shutdownReason?: string;
  /** The child's exit status, where it was this volantd's child. */
  readonly exitCode?: number;
  readonly signal?: string;
}

const SENTENCES: Readonly<Record<string, string>> = {
  "guest-shutdown": "the guest powered off",
  "guest-reset": "the guest restarted itself",
  "guest-panic": "the guest's kernel panicked",
  "host-signal": "the hypervisor was ended by a signal",
  "host-qmp-quit": "the hypervisor was told to quit",
  "host-error": "the hypervisor gave up on the guest",
  "subsystem-reset": "the guest restarted itself",
};

/** The reason that the kernel prints when it panics, from its console. */
function panicReason(console: readonly string[]): string | undefined {
  for (const line of console.toReversed()) {
    const match = /Kernel panic - not syncing: (.*)$/.exec(line);
    if (match?.[1] !== undefined) return match[1];
  }
  return undefined;
}

/**
 * @param record what is known of this generation; undefined when it ended while no volantd was there
 * @param console last lines of the guest's console, fit to be shown; the last few of them go into the report
 * @param hypervisorTail last lines that the hypervisor itself printed
 */
export function describeExit(
  record: ExitRecord | undefined,
  console: readonly string[],
  hypervisorTail: readonly string[],
): ExitReport {
  const reason = record?.shutdownReason;
  const consoleTail = console.slice(-TAIL_LINES);
  // A panic is followed by a trace that is longer than what is worth showing.
  const panic = panicReason(console);
  // With panic=-1 the kernel restarts after a panic, and -no-reboot makes that the end: only the console tells the two apart.
  if (panic !== undefined && (reason === undefined || reason === "guest-reset" || reason === "guest-panic")) {
    return { cause: "guest-panic", message: `the guest's kernel panicked: ${panic}`, consoleTail };
  }
  if (reason !== undefined) {
    return { cause: reason, message: SENTENCES[reason] ?? `the hypervisor ended (${reason})`, consoleTail };
  }
  if (record?.signal !== undefined) {
    return { cause: "host-signal", message: `the hypervisor was ended by ${record.signal}`, consoleTail };
  }
  const said = hypervisorTail.at(-1);
  if (record?.exitCode !== undefined && record.exitCode !== 0) {
    const message = said === undefined ? `with status ${record.exitCode}` : `: ${said}`;
    return { cause: "error", message: `the hypervisor failed ${message}`.replace(" :", ":"), consoleTail };
  }
  return { cause: "unknown", message: "the hypervisor ended while nobody was looking", consoleTail };
}

/** A record from its file; undefined when it is none, or of another generation. */
export function parseExitRecord(text: string, generation: number): ExitRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { shutdownReason, exitCode, signal, ...rest } = value as Partial<Record<keyof ExitRecord, unknown>>;
  if (rest.generation !== generation) return undefined;
  return {
    generation,
    ...(typeof shutdownReason === "string" ? { shutdownReason } : {}),
    ...(typeof exitCode === "number" ? { exitCode } : {}),
    ...(typeof signal === "string" ? { signal } : {}),
  };
}
