/**
 * Who did what: lines of JSON in `<log dir>/audit.jsonl`, the file before it beside it as `audit.jsonl.1`. What the disk does not take in time is counted, and
 * said in a line of its own. Written after the answer: whoever waits for volantd does not wait for its log.
 */
import { constants } from "node:fs";
import { mkdir, open, rename } from "node:fs/promises";
import { dirname } from "node:path";

export const DEFAULT_AUDIT_FILE_BYTES = 4 * 1024 * 1024;
/** Text that waits for the disk. */
const MAX_WAITING_BYTES = 1024 * 1024;

export interface AuditLogOptions {
  readonly path: string;
  /** A file that has grown beyond it is kept as the older one, in place of that which was. */
  readonly maxFileBytes?: number | undefined;
  readonly now: () => Date;
  /** Told once, until it can be written again. */
  readonly onError: (error: unknown) => void;
}

/** One line. JSON leaves some characters as they are that move a terminal's cursor, or are line breaks to some programs: those are written out. */
export function auditLine(fields: object): string {
  // oxlint-disable-next-line no-control-regex
  return `${JSON.stringify(fields).replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, escape)}\n`;
}

function escape(character: string): string {
  return `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`;
}

export class AuditLog {
  readonly #options: AuditLogOptions;
  #waiting = "";
  #lost = 0;
  #writing: Promise<void> | undefined;
  #isFailing = false;

  constructor(options: AuditLogOptions) {
    this.#options = options;
  }

  append(fields: object): void {
    if (this.#waiting.length > MAX_WAITING_BYTES) this.#lost += 1;
    else this.#waiting += this.#line(fields);
    this.#writing ??= this.#write();
  }

  /** Resolves when all that was appended is in the file, or lost. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  #line(fields: object): string {
    return auditLine({ time: this.#options.now().toISOString(), ...fields });
  }

  async #write(): Promise<void> {
    while (this.#waiting !== "") {
      const text = this.#lost === 0 ? this.#waiting : this.#line({ lost_lines: this.#lost }) + this.#waiting;
      const lines = this.#waiting.split("\n").length - 1;
      this.#waiting = "";
      const lost = this.#lost;
      this.#lost = 0;
      try {
        await this.#appendToFile(text);
        this.#isFailing = false;
      } catch (error) {
        // A full disk must not stop what the log is about; the next line that is written says how many are missing.
        this.#lost += lost + lines;
        if (!this.#isFailing) this.#options.onError(error);
        this.#isFailing = true;
      }
    }
    this.#writing = undefined;
  }

  async #appendToFile(text: string): Promise<void> {
    const { path, maxFileBytes = DEFAULT_AUDIT_FILE_BYTES } = this.#options;
    await mkdir(dirname(path), { recursive: true, mode: 0o750 });
    let full: boolean;
    {
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW;
      await using file = await open(path, flags, 0o600);
      await file.appendFile(text);
      full = (await file.stat()).size >= maxFileBytes;
    }
    if (full) await rename(path, `${path}.1`);
  }
}
