/** Reads values that a guest sent. Guests are hostile: everything is checked, bounded, and `undefined` when it is not what it should be. Pure. */

export type JsonObject = Readonly<Record<string, unknown>>;

/** The object that `text` encodes; undefined for anything else. */
export function parseObject(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return asObject(value);
  } catch {
    return undefined;
  }
}

export function asObject(value: unknown): JsonObject | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return value as JsonObject;
}

/** Text of at most `maxLength` UTF-16 units without control characters, so that it can be shown and logged. */
export function asText(value: unknown, maxLength: number): string | undefined {
  if (typeof value !== "string" || value.length > maxLength) return undefined;
  // oxlint-disable-next-line no-control-regex -- they are what is looked for
  return /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(value) ? undefined : value;
}

/** Free text for people: control characters become U+FFFD and what is too long is cut, so that a message is never lost. */
export function asMessage(value: unknown, maxLength: number): string | undefined {
  if (typeof value !== "string") return undefined;
  // oxlint-disable-next-line no-control-regex -- they are what is looked for
  return value.slice(0, maxLength).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "\ufffd");
}

/** An integer from 0 to 2^53 - 1, or to `max`. */
export function asCount(value: unknown, max: number = Number.MAX_SAFE_INTEGER): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= max ? value : undefined;
}

export function asBoolean(value: unknown): boolean | undefined {
  return typeof value === "boolean" ? value : undefined;
}

/** An RFC 3339 time as `2026-01-02T03:04:05.678Z`. */
export function asTime(value: unknown): Date | undefined {
  if (typeof value !== "string" || !/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$/.test(value)) return undefined;
  const time = new Date(value);
  return Number.isNaN(time.getTime()) ? undefined : time;
}
