import type { VolantClient } from "@volant/sdk";
import { patienceMs, type WaitFlags } from "./commands/vms/wait-flags.ts";
import type { CommandContext } from "./context.ts";
import { result, type Result } from "./output.ts";
import { forEachName } from "./several.ts";

/** Deletes each of them; done when nothing of them is left, unless the flags say otherwise. */
export async function deleteEach(
  context: CommandContext,
  names: readonly string[],
  options: WaitFlags,
  remove: (client: VolantClient, name: string, patience: { readonly waitMs: number | undefined }) => Promise<void>,
): Promise<Result> {
  const client = await context.client();
  context.progress.show(`deleting ${names.join(", ")}`);
  const patience = { waitMs: patienceMs(options) };
  const { done, failures } = await forEachName(names, (name) => remove(client, name, patience));
  const what = options.wait === false ? "is being deleted" : "deleted";
  return result(
    { deleted: done },
    ({ deleted }) => deleted.map((name) => `${name} ${what}\n`).join(""),
    failures,
    ({ deleted }) => deleted,
  );
}
