/**
 * Listening Unix sockets to be handed to a child process. Node's own servers accept what comes while they are open; these only listen: who connects
 * before the child has them waits for it. `closeSync` of node:fs closes them, and leaves the path.
 */
import { errnoError, invalidArgument } from "./errors.ts";
import { libc } from "./transport/libc.ts";

const AF_UNIX = 1;
/** SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC. */
const SOCKET_TYPE = 1 | 0o4000 | 0o2000000;
const BACKLOG = 511;
/** sockaddr_un holds 108 bytes with the closing NUL (unix(7)). */
const MAX_PATH_BYTES = 107;

/** A socket that listens at `path`, where nothing may be yet. @throws NetlinkError EADDRINUSE, EINVAL (too long a path), ENOENT, … */
export function listenUnix(path: string): number {
  const operation = "listen";
  const bytes = Buffer.from(path);
  if (bytes.length === 0 || bytes.length > MAX_PATH_BYTES || bytes.includes(0)) {
    throw invalidArgument(operation, path, `a socket's path has 1 to ${MAX_PATH_BYTES} bytes and no zero byte`);
  }
  const c = libc();
  const fd = c.socket(AF_UNIX, SOCKET_TYPE, 0);
  if (fd < 0) throw errnoError(-fd, operation, path);
  const address = Buffer.alloc(2 + bytes.length + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  const bound = c.bind(fd, address);
  const failed = bound < 0 ? bound : c.listen(fd, BACKLOG);
  if (failed >= 0) return fd;
  c.close(fd);
  throw errnoError(-failed, operation, path);
}
