/** `?wait=`: how long a request waits for what it asks for. */
import { Type, type Static } from "typebox";
import { VolantError } from "./errors.ts";

/** What `?wait` without a value means, in milliseconds. */
export const DEFAULT_WAIT_MS = 60_000;
/** The longest wait, in milliseconds; who wants to know longer follows the events. */
export const MAX_WAIT_MS = 600_000;

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };

export const WaitQuery = Type.Object(
  {
    wait: Type.Optional(
      Type.String({
        maxLength: 16,
        description:
          "Wait for the outcome for so long, such as 30s, 500ms, 2m or 30 (seconds), at most 10m; without a value 60 s. 202 says that time was up: what was asked for goes on",
      }),
    ),
  },
  { additionalProperties: false },
);
export type WaitQuery = Static<typeof WaitQuery>;

/**
 * Milliseconds of a `?wait=`; undefined where there is none.
 *
 * @throws VolantError `invalid` when it is no time, or longer than {@link MAX_WAIT_MS}
 */
export function waitMs(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (text === "") return DEFAULT_WAIT_MS;
  const match = /^([0-9]{1,6})(ms|s|m)?$/.exec(text);
  const value = match === null ? Number.NaN : Number(match[1]) * (UNIT_MS[match[2] ?? "s"] ?? 1000);
  if (value <= MAX_WAIT_MS) return value;
  throw new VolantError(
    "invalid",
    `query: field "wait" must be a time such as 30s, at most 10m, and is ${JSON.stringify(text)}`,
  );
}
