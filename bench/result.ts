/** What a measurement found: ours and a rival's samples from the same run, or ours alone against a limit. */
export interface BenchResult {
  readonly name: string;
  readonly unit: string;
  /** Ours, one number a run. */
  readonly ours: readonly number[];
  readonly rival?: { readonly name: string; readonly samples: readonly number[] };
  /** What must hold, in words, such as "at most 1.10 × the rival". */
  readonly target: string;
  readonly ok: boolean;
}

/** The middle value; the mean of the two middle ones for an even count. */
export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle];
  if (upper === undefined) throw new Error("no samples");
  const lower = sorted[middle - 1];
  return sorted.length % 2 === 1 || lower === undefined ? upper : (lower + upper) / 2;
}

/** The sample that this part of them does not exceed. */
export function percentile(samples: readonly number[], part: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const found = sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)];
  if (found === undefined) throw new Error("no samples");
  return found;
}

/** Median of ours over median of the rival's. */
export function ratio(ours: readonly number[], rival: readonly number[]): number {
  return median(ours) / median(rival);
}

function show(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function showSamples(samples: readonly number[], unit: string): string {
  const spread = samples.length > 1 ? ` (${show(Math.min(...samples))}–${show(Math.max(...samples))})` : "";
  return `${show(median(samples))} ${unit}${spread}`;
}

/** A Markdown table: medians, with smallest and largest in brackets. */
export function resultTable(results: readonly BenchResult[]): string {
  const rows = results.map(({ name, unit, ours, rival, target, ok }) => {
    const other = rival === undefined ? "" : `${rival.name}: ${showSamples(rival.samples, unit)}`;
    const times = rival === undefined ? "" : show(ratio(ours, rival.samples));
    return `| ${name} | ${showSamples(ours, unit)} | ${other} | ${times} | ${target} | ${ok ? "yes" : "no"} |`;
  });
  return ["| what | Volant | rival | ratio | target | met |", "|---|---|---|---|---|---|", ...rows].join("\n");
}
