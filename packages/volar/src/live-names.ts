/** Names of what volantd has now, for suggestions: asked for with little patience, and never an error. */
import { VolantError } from "@volant/contract/errors";
import type { VolantClient } from "@volant/sdk";
import type { Noun } from "./placeholders.ts";

/** So many VMs are enough to choose from. */
const MOST_VMS = 5000;

const ASK: Readonly<Record<Noun, (client: VolantClient, signal: AbortSignal) => Promise<readonly string[]>>> = {
  vm: async (client, signal) => (await client.vms.list({ limit: MOST_VMS }, { signal })).vms.map(({ name }) => name),
  deployment: async (client, signal) => (await client.deployments.list({ signal })).map(({ name }) => name),
  plugin: async (client, signal) => await client.plugins.list({ signal }),
};

/** Nothing where volantd does not answer in time, or not as it should. */
export async function liveNames(
  open: () => Promise<VolantClient>,
  nouns: readonly Noun[],
  timeoutMs: number,
): Promise<string[]> {
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const client = await open();
    return (await Promise.all(nouns.map((noun) => ASK[noun](client, signal)))).flat();
  } catch (error) {
    if (signal.aborted || error instanceof VolantError) return [];
    throw error;
  }
}
