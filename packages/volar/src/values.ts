/** Values of flags. Pure; what does not fit is a usage error that names it. */
import { InvalidArgumentError } from "commander";

/** A whole number of at least `minimum`. */
export function wholeNumber(minimum: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= minimum) return value;
    throw new InvalidArgumentError(`It must be a whole number of at least ${minimum}.`);
  };
}

/** Memory in MiB: a plain number is MiB; `M`, `MiB`, `G`, `GiB` may follow. */
export function memoryMib(text: string): number {
  const match = /^([0-9]{1,9})(?:([MG])(?:i?B)?)?$/i.exec(text);
  if (match === null) throw new InvalidArgumentError("It must be a number of MiB such as 512, or 512M or 2G.");
  return Number(match[1]) * (match[2]?.toUpperCase() === "G" ? 1024 : 1);
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
/** Timers of 2^31 ms or more fire at once (Node's documentation of setTimeout). */
const MAX_TIMER_MS = 2_147_483_647;

/** A time in milliseconds: a plain number is seconds; `ms`, `s`, `m` or `h` may follow. */
export function durationMs(text: string): number {
  const match = /^([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h)?$/.exec(text);
  const value = match === null ? Number.NaN : Number(match[1]) * (UNIT_MS[match[2] ?? "s"] ?? 1000);
  if (value > 0 && value <= MAX_TIMER_MS) return value;
  throw new InvalidArgumentError("It must be a time such as 30, 30s or 5m.");
}

const MS_PER_DAY = 86_400_000;

/** A time that has passed: so long ago, with `s`, `m`, `h` or `d`; or a date, or a time of RFC 3339. */
export function pastTime(text: string, _before?: Date, nowMs = Date.now()): Date {
  const ago = /^([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])$/.exec(text);
  const unitMs = ago?.[2] === "d" ? MS_PER_DAY : UNIT_MS[ago?.[2] ?? ""];
  const isTime = /^\d{4}-\d\d-\d\d([Tt]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)?)?$/.test(text);
  const ms = ago !== null && unitMs !== undefined ? nowMs - Number(ago[1]) * unitMs : isTime ? Date.parse(text) : NaN;
  // RFC 3339 has years of four digits.
  if (ms >= Date.UTC(1970, 0) && ms < Date.UTC(10_000, 0)) return new Date(ms);
  throw new InvalidArgumentError(
    "It must be so long ago, such as 30m, 12h or 2d, or a time such as 2026-01-31T08:00:00Z.",
  );
}

/** `<host port>:<guest port>`. Port 0 of the host means any that is free. */
export function portPair(text: string): { readonly hostPort: number; readonly guestPort: number } {
  const match = /^([0-9]{1,5}):([0-9]{1,5})$/.exec(text);
  const [hostPort, guestPort] = [Number(match?.[1]), Number(match?.[2])];
  if (match !== null && hostPort <= 65_535 && guestPort >= 1 && guestPort <= 65_535) return { hostPort, guestPort };
  throw new InvalidArgumentError("It must be <host port>:<guest port>, such as 8080:80.");
}

/** Gathers a flag that may be repeated. */
export function repeated(text: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), text];
}

/** The same, for `KEY=VALUE`. */
export function keyValue(text: string, before: Readonly<Record<string, string>> | undefined): Record<string, string> {
  const equals = text.indexOf("=");
  if (equals < 1) throw new InvalidArgumentError("It must be KEY=VALUE.");
  return { ...before, [text.slice(0, equals)]: text.slice(equals + 1) };
}
