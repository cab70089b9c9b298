import type { CliIo } from "./io.ts";
import { printable } from "./table.ts";

export interface Progress {
  /** Shows what is going on now, in place of what was shown before. */
  show(text: string): void;
  /** Leaves a finished line behind. */
  finish(text: string): void;
  /** Takes the current line away, so that other output starts on an empty one. */
  clear(): void;
}

/** Erase in line, whole line (ECMA-48 section 8.3.41). */
const CLEAR_LINE = "\r\u001b[2K";

/** Progress on standard error where that is a terminal, nothing elsewhere. */
export function createProgress(io: CliIo): Progress {
  if (!io.stderrIsTerminal) return { show: () => undefined, finish: () => undefined, clear: () => undefined };
  let drawn = false;
  const clear = () => {
    if (drawn) io.stderr.write(CLEAR_LINE);
    drawn = false;
  };
  return {
    show(text) {
      io.stderr.write(`${CLEAR_LINE}${printable(text)}`);
      drawn = true;
    },
    finish(text) {
      clear();
      io.stderr.write(`${printable(text)}\n`);
    },
    clear,
  };
}
