/** Files that must be whole or not there at all, whenever the machine stops. */
import { mkdir, open, readFile, readdir, rename, rm, rmdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}

/** What a file holds, or undefined when there is none. */
export async function readTextFile(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}

/** The names in a folder, or none when it can't be read. */
export async function listFolder(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch {
    return [];
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Where a file is written before it is put in place: one name, so that what a killed process left is found again. */
function newFile(path: string): string {
  return join(dirname(path), `.${basename(path)}.volant-new`);
}

/** Puts a file in place as a whole, on the disk when this resolves. Its folder must exist. */
export async function writeTextFile(path: string, content: string, mode: number): Promise<void> {
  const temporary = newFile(path);
  await rm(temporary, { force: true });
  const file = await open(temporary, "wx", mode);
  try {
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Removes a file if it is there, and what a writer that was killed left of it; on the disk when this resolves. */
export async function deleteFile(path: string): Promise<void> {
  try {
    await rm(newFile(path), { force: true });
    await rm(path);
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return;
    throw error;
  }
  await syncFolder(dirname(path));
}

/** The folders that would have to be made for `path` to be one, the outermost first. */
export async function missingFolders(path: string): Promise<string[]> {
  const missing: string[] = [];
  for (let folder = path; folder !== dirname(folder); folder = dirname(folder)) {
    try {
      await stat(folder);
      break;
    } catch (error) {
      if (!hasCode(error, "ENOENT")) throw error;
      missing.unshift(folder);
    }
  }
  return missing;
}

/** Makes a folder and those that it lies in. */
export async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o755 });
}

/** Removes folders that hold nothing, the last one first, up to the first that does. */
export async function removeEmptyFolders(folders: readonly string[]): Promise<void> {
  for (const folder of folders.toReversed()) {
    try {
      await rmdir(folder);
    } catch (error) {
      if (hasCode(error, "ENOENT")) continue;
      return;
    }
  }
}
