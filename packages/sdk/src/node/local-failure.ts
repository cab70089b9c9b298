import { VolantError, type ErrorCode } from "@volant/contract/errors";

const WORDS: Readonly<Record<string, [code: ErrorCode, words: string]>> = {
  ENOENT: ["not_found", "there is no such file or directory"],
  ENOTDIR: ["not_found", "it leads through a file, which is no directory"],
  EISDIR: ["wrong_state", "it is a directory"],
  EACCES: ["forbidden", "this user may not do that"],
  EPERM: ["forbidden", "this user may not do that"],
  EROFS: ["wrong_state", "it is on a read-only file system"],
  ENOSPC: ["exhausted", "no space is left on this machine"],
  EDQUOT: ["exhausted", "no space is left for this user"],
  EFBIG: ["exhausted", "it is larger than a file may be here"],
  ELOOP: ["invalid", "its symbolic links go in a circle"],
  ENAMETOOLONG: ["invalid", "the name is too long"],
  EINVAL: ["invalid", "this machine takes no such name"],
};

/** What went wrong with a file of this machine, as one sentence; a bug stays what it is. */
export function localFailure(path: string, error: unknown): unknown {
  if (error instanceof VolantError) return error;
  const found = WORDS[(error as NodeJS.ErrnoException).code ?? ""];
  return found === undefined ? error : new VolantError(found[0], `${path}: ${found[1]}`, { cause: error });
}
