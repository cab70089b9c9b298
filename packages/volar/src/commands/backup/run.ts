/** What `volar backup` does: fetches the store, looks at it, and puts it in place as a whole. */
import { randomBytes } from "node:crypto";
import { link, open, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { VolantError } from "@volant/contract/errors";
import { type DatabaseFacts, inspectDatabase } from "@volant/host";
import type { CommandContext } from "../../context.ts";
import { writeFailure } from "../../file-failure.ts";
import { type Result, result } from "../../output.ts";
import { formatFields } from "../../table.ts";

export interface BackupFlags {
  readonly force?: boolean;
}

/** @throws VolantError `exists` where there is such a file and no --force */
export async function runBackup(
  context: CommandContext,
  given: string,
  { force = false }: BackupFlags,
): Promise<Result> {
  const path = resolve(given);
  if (!force && (await stat(path).catch(() => undefined)) !== undefined) throw taken(path);
  const client = await context.client();
  const content = await client.system.backup();
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.part`);
  try {
    const file = await open(temporary, "wx", 0o600).catch((error: unknown) => {
      throw writeFailure(path, error);
    });
    try {
      for await (const part of content) await file.write(part);
      await file.sync();
    } catch (error) {
      // fetch() tells of a connection that broke by a TypeError.
      if (!(error instanceof TypeError)) throw writeFailure(path, error);
      throw new VolantError("not_ready", "the backup broke off: volantd, or the way to it, is gone", { cause: error });
    } finally {
      await file.close();
    }
    const facts = inspectSent(temporary);
    const { size } = await stat(temporary);
    await putInPlace(temporary, path, force);
    return shown(path, size, facts);
  } finally {
    await rm(temporary, { force: true });
  }
}

function inspectSent(temporary: string): DatabaseFacts {
  try {
    return inspectDatabase(temporary);
  } catch (error) {
    if (!(error instanceof VolantError)) throw error;
    throw new VolantError("not_ready", `what was sent is no whole backup: ${(error.cause as Error).message}`, {
      cause: error,
    });
  }
}

function taken(path: string): VolantError {
  return new VolantError("exists", `${path} exists already`, { hint: "say --force to replace it" });
}

/** Without `force` by a link, which never replaces what somebody else put there meanwhile. */
async function putInPlace(temporary: string, path: string, force: boolean): Promise<void> {
  try {
    if (force) await rename(temporary, path);
    else await link(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") throw taken(path);
    throw writeFailure(path, error);
  }
  const folder = await open(dirname(path), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function shown(path: string, sizeBytes: number, { installation, schemaVersion, vms, plugins }: DatabaseFacts): Result {
  const data = {
    file: path,
    size_bytes: sizeBytes,
    installation,
    schema_version: schemaVersion,
    vms: vms.length,
    plugins,
  };
  const view = (seen: typeof data) =>
    formatFields([
      ["file", seen.file],
      ["size", `${Math.ceil(seen.size_bytes / 1024)} KiB`],
      ["installation", seen.installation],
      ["VMs", String(seen.vms)],
      ["plugins", String(seen.plugins)],
    ]);
  return result(data, view, [], ({ file }) => [file]);
}
