/** Files on their way to volantd, which reads none by a path that it is told: they go over by digest, where volantd lacks them. */
import type { VolantClient } from "@volant/sdk";
import type { CommandContext } from "./context.ts";
import { checkFile, fileName, readWithProgress, type CheckedFile, type FoundFile } from "./plugin-files.ts";

/** Reads files and looks whether they are what they should be. @throws VolantError as {@link checkFile} does */
export async function checkFiles(
  { progress }: Pick<CommandContext, "progress">,
  files: readonly FoundFile[],
): Promise<CheckedFile[]> {
  const checked: CheckedFile[] = [];
  for (const file of files) {
    checked.push(await checkFile(file, (percent) => progress.show(`reading ${fileName(file)} ${percent} %`)));
  }
  return checked;
}

/** Sends those that volantd does not have. */
export async function handOver(
  { progress }: Pick<CommandContext, "progress">,
  client: VolantClient,
  files: readonly CheckedFile[],
): Promise<void> {
  for (const file of files) {
    if (await client.images.has(file.actual)) continue;
    const show = (percent: number) => progress.show(`handing over ${fileName(file)} ${percent} %`);
    await client.images.put(file.actual, readWithProgress(file, show));
  }
}
