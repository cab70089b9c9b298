/** A terminal's whole screen, drawn anew each time. */
import type { CliIo } from "../../io.ts";

interface Terminal {
  readonly isTTY?: boolean;
  readonly rows?: number;
  readonly columns?: number;
}

interface Keys {
  readonly isTTY?: boolean;
  setRawMode?(raw: boolean): unknown;
}

export interface FullScreen {
  /** Takes the screen; q, Ctrl-C or a signal call back. Returns what gives it back. */
  open(onQuit: () => void): () => void;
  /** A line for all, and below it as much of the text as there is room for. */
  draw(head: string, text: string): void;
}

/** xterm's control sequences: another screen and back (1049), cursor away and back (25), home, and erase to the end of line and screen (ECMA-48). */
const TAKE = "\u001b[?1049h\u001b[?25l";
const GIVE_BACK = "\u001b[?25h\u001b[?1049l";
const HOME = "\u001b[H";
const END_LINE = "\u001b[K\r\n";
const ERASE_BELOW = "\u001b[J";
const CTRL_C = "\u0003";
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Lines that fit a screen: the last row stays empty, so that it does not scroll. */
export function fit(lines: readonly string[], rows: number, columns: number): string[] {
  const room = Math.max(1, rows - 1);
  const shown = lines.length <= room ? lines : [...lines.slice(0, room - 1), `and ${lines.length - room + 1} more`];
  return shown.map((line) => line.slice(0, columns));
}

/** Undefined where standard output is no terminal. */
export function screenOf({ stdout, stdin }: CliIo): FullScreen | undefined {
  const terminal = stdout as typeof stdout & Terminal;
  if (terminal.isTTY !== true) return undefined;
  const keys = stdin as typeof stdin & Keys;
  return {
    open(onQuit) {
      const pressed = (typed: Buffer) => {
        if (/q/i.test(typed.toString()) || typed.includes(CTRL_C)) onQuit();
      };
      const isTyped = keys.isTTY === true;
      stdout.write(TAKE);
      if (isTyped) {
        keys.setRawMode?.(true);
        stdin.on("data", pressed);
      }
      for (const signal of SIGNALS) process.on(signal, onQuit);
      return () => {
        for (const signal of SIGNALS) process.off(signal, onQuit);
        if (isTyped) {
          stdin.off("data", pressed);
          keys.setRawMode?.(false);
          stdin.destroy();
        }
        stdout.write(GIVE_BACK);
      };
    },
    draw(head, text) {
      const { rows = 24, columns = 80 } = terminal;
      const lines = [head, "", ...text.trimEnd().split("\n")];
      stdout.write(
        `${HOME}${fit(lines, rows, columns)
          .map((line) => `${line}${END_LINE}`)
          .join("")}${ERASE_BELOW}`,
      );
    },
  };
}
