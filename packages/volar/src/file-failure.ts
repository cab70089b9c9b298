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

/** What went wrong with a file that the user named, as one sentence; a bug stays what it is. */
export function fileFailure(path: string, error: unknown): unknown {
  const words = WORDS[(error as NodeJS.ErrnoException).code ?? ""];
  return words === undefined ? error : new VolantError("invalid", `cannot read ${path}: ${words}`, { cause: error });
}
