/** What `volar top` does. */
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { VmUsageReading } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import type { VolantClient } from "@volant/sdk";
import type { CommandContext } from "../../context.ts";
import { renderItem, result, type Result } from "../../output.ts";
import { usageSummary, usageTable } from "../../views/usage.ts";
import { arrange, ratesBetween, type Sort, type VmRate } from "./rates.ts";
import { screenOf } from "./screen.ts";

export interface TopFlags {
  /** Milliseconds. */
  readonly interval: number;
  readonly once?: boolean;
  readonly sort: Sort;
}

/** What VMs used between one reading and the next, until the signal aborts. */
async function* rates(client: VolantClient, intervalMs: number, signal: AbortSignal): AsyncGenerator<VmRate[]> {
  let before: VmUsageReading | undefined;
  while (!signal.aborted) {
    const reading = await client.vms.usage({ signal });
    // A volantd that was started anew has another clock.
    if (before !== undefined && reading.clock_ms > before.clock_ms) yield ratesBetween(before, reading);
    before = reading;
    await delay(intervalMs, undefined, { signal });
  }
}

/** A name that is none should be said now, and not be missing without a word. @throws VolantError `not_found` */
async function checkNames(client: VolantClient, names: readonly string[]): Promise<void> {
  await Promise.all(names.map((name) => client.vms.get(name)));
}

/** Shows what VMs use: once, as a screen that is drawn anew, or as one document after the other where there is no terminal. */
export async function runTop(
  context: CommandContext,
  names: readonly string[],
  { interval: intervalMs, once: isOnce = false, sort }: TopFlags,
): Promise<Result | undefined> {
  const { io, output, quiet } = context;
  const client = await context.client();
  await checkNames(client, names);
  const screen = isOnce || output !== "table" || quiet ? undefined : screenOf(io);
  const stop = new AbortController();
  const close = screen?.open(() => stop.abort());
  try {
    for await (const found of rates(client, intervalMs, stop.signal)) {
      const shown = arrange(found, sort, names);
      if (isOnce) return result(shown, usageTable);
      if (screen !== undefined) screen.draw(usageSummary(shown), usageTable(shown));
      else {
        const item = quiet ? shown.map(({ name }) => name) : shown;
        const lines = () => (quiet ? shown.map(({ name }) => name).join("\n") : usageTable(shown));
        if (!io.stdout.write(await renderItem(item, output, lines))) await once(io.stdout, "drain");
      }
    }
    return undefined;
  } catch (error) {
    if (!stop.signal.aborted || error instanceof VolantError) throw error;
    return undefined;
  } finally {
    close?.();
  }
}
