import { closeSync, ftruncateSync } from "node:fs";
import { errnoError } from "./errors.ts";
import { libc } from "./transport/libc.ts";
import { checkNumber } from "./validate.ts";

/** MFD_CLOEXEC (include/uapi/linux/memfd.h). */
const CLOSE_ON_EXEC = 1;

/**
 * A descriptor on zeroed memory that has no name in any file system (memfd_create(2)), to be shared with child processes in `stdio`. Here because it takes
 * the C library, which Node does not offer. It takes no memory before it is written to; `closeSync` of node:fs closes it.
 *
 * @param name for people who look at /proc/<pid>/fd
 * @param bytes its size
 */
export function createMemoryFile(name: string, bytes: number): number {
  const operation = "create memory file";
  checkNumber(operation, name, "the size", bytes, [0, Number.MAX_SAFE_INTEGER]);
  const fd = libc().memoryFile(name, CLOSE_ON_EXEC);
  if (fd < 0) throw errnoError(-fd, operation, name);
  try {
    ftruncateSync(fd, bytes);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
