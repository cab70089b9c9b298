/** Whether what a daemon holds stays as it is while it works for long. Pure. */
import { median, type BenchResult } from "./result.ts";

/** What was seen at one moment, by name; the names are the same at each. */
export type Sample<Name extends string = string> = Readonly<Record<Name, number>>;

/** How much more the end may have than the beginning. */
export interface Limit {
  readonly unit: string;
  /** A part of the beginning: 0.1 is a tenth. */
  readonly part: number;
  /** Beside that. */
  readonly more: number;
}

/** Part of the samples that is left out at the beginning: caches fill, and code is compiled. */
const WARM_UP = 0.2;
/** For thirds with a middle that means something. */
export const LEAST_SAMPLES = 9;

/**
 * Compares, for each name, the median of the first third after the warm-up with that of the last third.
 *
 * @throws Error when there are fewer than {@link LEAST_SAMPLES}
 */
export function soakVerdict<Name extends string>(
  samples: readonly Sample<Name>[],
  limits: Readonly<Record<Name, Limit>>,
): BenchResult[] {
  if (samples.length < LEAST_SAMPLES)
    throw new Error(`${samples.length} samples say nothing: ${LEAST_SAMPLES} are needed`);
  const warm = samples.slice(Math.floor(samples.length * WARM_UP));
  const third = Math.floor(warm.length / 3);
  return (Object.keys(limits) as Name[]).map((name) => {
    const { unit, part, more } = limits[name];
    const middle = (chosen: readonly Sample<Name>[]) => median(chosen.map((sample) => sample[name]));
    const first = middle(warm.slice(0, third));
    const last = middle(warm.slice(-third));
    const most = first * (1 + part) + more;
    return {
      name: `soak: ${name}, last third`,
      unit,
      ours: [last],
      rival: { name: "first third", samples: [first] },
      target: `at most ${(1 + part).toFixed(2)} × the first third + ${more}`,
      ok: last <= most,
    };
  });
}
