/**
 * Unpacking a guest's archive on this machine. The guest is hostile: nothing is written outside the one path that the user has named, whatever names,
 * links and kinds of entries the archive holds.
 *
 * - A name's first component is replaced by the name that the user asked for; `..`, empty and absolute names are refused.
 * - Symbolic links are made last, so that no entry goes through one, and only those that stay within the copy. A directory of the copy that is a link
 *   already, as from an earlier copy, is refused.
 * - Hard links, devices and pipes are left out; of a mode, what set-id, sticky and the umask forbid is dropped.
 */
import { randomBytes } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { chmod, lstat, mkdir, open, realpath, rename, rm, stat, symlink } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { VolantError } from "@volant/contract/errors";
import { localFailure } from "./local-failure.ts";
import type { TarEntry } from "./tar/header.ts";
import { TarReader } from "./tar/reader.ts";

/** So many things that were left out are named; the rest is counted. */
const MAX_NAMED = 100;
/** More entries than this in one copy are refused: what is remembered of directories and links has to have an end. */
const MAX_REMEMBERED = 500_000;

export interface UnpackOptions {
  /** What the copy is called where `to` is a directory. */
  readonly name: string;
  /** Called with the count of bytes written so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
  /** Called with what was left out, as a sentence. Its names are the guest's: not fit for a terminal. */
  readonly onLeftOut?: ((sentence: string) => void) | undefined;
}

export interface Unpacked {
  /** Where the copy is. */
  readonly path: string;
  /** Files and symbolic links. */
  readonly files: number;
  readonly bytes: number;
}

async function find(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw localFailure(path, error);
  }
}

/** The path that the copy gets: below `to` where that is a directory, else `to` itself, whose parent must be one. */
export async function destinationFor(to: string, name: string): Promise<string> {
  try {
    const there = await stat(to).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (there?.isDirectory() === true) return join(resolve(to), name);
    if (there !== undefined) {
      if (!there.isFile()) throw new VolantError("wrong_state", `${to} is neither a file nor a directory`);
      // The user's own link, which every program that writes there would follow.
      return await realpath(to);
    }
    const parent = to.endsWith("/") ? to : dirname(resolve(to));
    const found = await stat(parent).catch(() => undefined);
    if (found?.isDirectory() !== true) throw new VolantError("not_found", `${parent}: there is no such directory`);
    return resolve(to);
  } catch (error) {
    throw localFailure(to, error);
  }
}

/** A name's components below the archive's one top entry. @throws VolantError for a name that leads elsewhere */
export function componentsBelow(name: string): string[] {
  const parts = name.split("/");
  if (parts.some((part) => part === "" || part === "." || part === ".." || part.includes("\0"))) {
    throw new VolantError("guest_unreachable", `the guest sent a name that leads elsewhere: ${JSON.stringify(name)}`);
  }
  return parts.slice(1);
}

/**
 * Whether a link at `at` that points to `target` stays within `root`. A `..` behind a name is refused: where it leads depends on whether that name is a
 * link too.
 */
export function staysWithin(root: string, at: string, target: string): boolean {
  if (target === "" || target.startsWith("/") || target.includes("\0")) return false;
  const parts = target.split("/").filter((part) => part !== "" && part !== ".");
  const firstName = parts.findIndex((part) => part !== "..");
  if (firstName !== -1 && parts.includes("..", firstName)) return false;
  const points = resolve(dirname(at), target);
  return points === root || points.startsWith(root + sep);
}

/**
 * Unpacks an archive with one entry at its top.
 *
 * @param to a directory, or the path that the copy gets
 * @throws VolantError what can't be written, or what the guest says went wrong; whole files that were written before stay
 */
export async function unpack(source: AsyncIterable<Uint8Array>, to: string, options: UnpackOptions): Promise<Unpacked> {
  const root = await destinationFor(to, options.name);
  const reader = new TarReader(source);
  const unpacking = new Unpacking(root, options);
  try {
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      await unpacking.put(entry, reader.body());
    }
    await unpacking.finish();
  } finally {
    await reader.close();
  }
  checkRemarks(reader, options.onLeftOut);
  return { path: root, files: unpacking.files, bytes: unpacking.bytes };
}

/** What the agent says at the end. @throws VolantError what could not be read in the guest */
export function checkRemarks({ remarks }: TarReader, onLeftOut?: (sentence: string) => void): void {
  const error = remarks.get("VOLANT.error");
  if (error !== undefined) throw new VolantError("wrong_state", error.slice(0, 1024));
  const leftOut = Number(remarks.get("VOLANT.left_out") ?? 0);
  if (leftOut > 0) onLeftOut?.(`${leftOut} in the guest that are no files, directories or symbolic links`);
}

class Unpacking {
  readonly #root: string;
  readonly #options: UnpackOptions;
  /** Paths known to be real directories. */
  readonly #directories = new Set<string>();
  readonly #modes: [path: string, mode: number][] = [];
  readonly #links: [path: string, target: string][] = [];
  readonly #umask = process.umask();
  #leftOut = 0;
  files = 0;
  bytes = 0;

  constructor(root: string, options: UnpackOptions) {
    this.#root = root;
    this.#options = options;
  }

  async put(entry: TarEntry, body: AsyncIterable<Uint8Array>): Promise<void> {
    const below = componentsBelow(entry.name);
    const path = join(this.#root, ...below);
    let parent = this.#root;
    for (const part of below.slice(0, -1)) {
      await this.#makeDirectory(parent);
      parent = join(parent, part);
    }
    if (below.length > 0) await this.#makeDirectory(parent);
    if (this.#directories.size + this.#links.length > MAX_REMEMBERED) {
      throw new VolantError("too_large", `the guest sent more than ${MAX_REMEMBERED} directories and links`);
    }
    try {
      await this.#place(entry, path, body);
    } catch (error) {
      throw localFailure(path, error);
    }
  }

  async #place(entry: TarEntry, path: string, body: AsyncIterable<Uint8Array>): Promise<void> {
    const mode = entry.mode & 0o777 & ~this.#umask;
    switch (entry.kind) {
      case "directory":
        // Its own mode comes last: it may not allow to write into it.
        if (await this.#makeDirectory(path)) this.#modes.push([path, mode]);
        return;
      case "symlink":
        if (staysWithin(this.#root, path, entry.target)) this.#links.push([path, entry.target]);
        else this.#leaveOut(`${path}, a link to ${entry.target}, which lies outside of the copy`);
        return;
      case "file":
        await this.#writeFile(path, mode, body);
        this.files += 1;
        return;
      case "other":
        this.#leaveOut(`${path}, which is no file, directory or symbolic link`);
    }
  }

  /** @returns whether it was not there before */
  async #makeDirectory(path: string): Promise<boolean> {
    if (this.#directories.has(path)) return false;
    const found = await find(path);
    if (found !== undefined && !found.isDirectory()) {
      const what = found.isSymbolicLink() ? "a symbolic link" : "no directory";
      throw new VolantError("wrong_state", `${path} is ${what}, and the copy has a directory there`);
    }
    if (found === undefined) {
      try {
        await mkdir(path, 0o700);
      } catch (error) {
        throw localFailure(path, error);
      }
      this.#modes.push([path, 0o777 & ~this.#umask]);
    }
    this.#directories.add(path);
    return found === undefined;
  }

  async #writeFile(path: string, mode: number, body: AsyncIterable<Uint8Array>): Promise<void> {
    await refuseDirectory(path);
    await passing(path, async (fresh) => {
      await using file = await open(fresh, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
      for await (const piece of body) {
        await file.writeFile(piece);
        this.bytes += piece.length;
        this.#options.onProgress?.(this.bytes);
      }
      await file.chmod(mode);
    });
  }

  /** Makes the links, and gives directories their modes. */
  async finish(): Promise<void> {
    const unnamed = this.#leftOut - MAX_NAMED;
    if (unnamed > 0) this.#options.onLeftOut?.(`${unnamed} more of the same`);
    for (const [path, target] of this.#links) {
      try {
        await refuseDirectory(path);
        await passing(path, (fresh) => symlink(target, fresh));
        this.files += 1;
      } catch (error) {
        throw localFailure(path, error);
      }
    }
    // The deepest first, and of two modes for one directory the later.
    for (const [path, mode] of new Map(this.#modes).entries().toArray().toReversed()) await chmod(path, mode);
  }

  #leaveOut(sentence: string): void {
    this.#leftOut += 1;
    if (this.#leftOut <= MAX_NAMED) this.#options.onLeftOut?.(sentence);
  }
}

async function refuseDirectory(path: string): Promise<void> {
  if ((await find(path))?.isDirectory() === true) {
    throw new VolantError("wrong_state", `${path} is a directory, and the copy has something else there`);
  }
}

/** Makes something under a name of its own, then puts it in its place: it is there whole or not at all. */
async function passing(path: string, make: (fresh: string) => Promise<void>): Promise<void> {
  const fresh = join(dirname(path), `.${basename(path).slice(0, 64)}.${randomBytes(6).toString("hex")}`);
  try {
    await make(fresh);
    await rename(fresh, path);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
}
