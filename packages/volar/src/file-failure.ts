import { VolantError } from "@volant/contract/errors";

const WORDS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  ENOTDIR: "there is no such file",
  EISDIR: "it is a directory",
  EACCES: "it may not be read",
  EPERM: "it may not be read",
  ELOOP: "its symbolic links go in a circle",
  ENAMETOOLONG: "the path is too long",
};

const WRITE_WORDS: Readonly<Record<string, string>> = {
  ...WORDS,
  ENOENT: "there is no such folder",
  ENOTDIR: "there is no such folder",
  EACCES: "it may not be written",
  EPERM: "it may not be written",
  EROFS: "its file system is read-only",
  ENOSPC: "its disk is full",
  EDQUOT: "its disk is full",
};

/** What went wrong with a file that was to be written, as one sentence; a bug, or another kind of failure, stays what it is. */
export function writeFailure(path: string, error: unknown): unknown {
  const words = WRITE_WORDS[(error as NodeJS.ErrnoException).code ?? ""];
  return words === undefined ? error : new VolantError("invalid", `cannot write ${path}: ${words}`, { cause: error });
}

/** What went wrong with a file that the user named, as one sentence; a bug stays what it is. */
export function fileFailure(path: string, error: unknown): unknown {
  const words = WORDS[(error as NodeJS.ErrnoException).code ?? ""];
  return words === undefined ? error : new VolantError("invalid", `cannot read ${path}: ${words}`, { cause: error });
}
