/** Lines of JSON on standard error: time, level, message, fields. A logger of a few lines, since volantd's memory and start-up count. */

export type LogFields = Readonly<Record<string, unknown>>;
export type LogWrite = (line: string) => void;

/** An error as fields; a stack only where the error is not an expected one. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (!(value instanceof Error)) return value;
  const { code } = value as { code?: unknown };
  const cause = value.cause === undefined ? {} : { cause: plain(value.cause) };
  const expected = value.name === "VolantError" || value.name === "NetlinkError";
  return { message: value.message, code, ...cause, ...(expected ? {} : { stack: value.stack }) };
}

export class Log {
  readonly #write: LogWrite;
  readonly #now: () => Date;

  constructor(write: LogWrite, now: () => Date) {
    this.#write = write;
    this.#now = now;
  }

  info(fields: object, message: string): void {
    this.#line("info", fields, message);
  }

  warn(fields: object, message: string): void {
    this.#line("warn", fields, message);
  }

  error(fields: object, message: string): void {
    this.#line("error", fields, message);
  }

  #line(level: string, fields: object, message: string): void {
    const line = { time: this.#now().toISOString(), level, message, ...fields };
    this.#write(`${JSON.stringify(line, (_key, value) => plain(value))}\n`);
  }
}
