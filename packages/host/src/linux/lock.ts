/** One set-up at a time. */
import { createHash } from "node:crypto";
import { createServer } from "node:net";
import { VolantError } from "@volant/contract";

/**
 * Runs the work while nobody else in this network namespace holds the lock of that name. The lock is an abstract Unix socket (unix(7)): it
 * leaves no file, and the kernel frees it when its holder dies, however it dies.
 *
 * @throws VolantError `in_use` when somebody holds it
 */
export async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const digest = createHash("sha256").update(name).digest("hex").slice(0, 16);
  const server = createServer((socket) => socket.destroy());
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(`\0volant-setup-${digest}`, resolve);
  try {
    await promise;
  } catch (cause) {
    throw new VolantError("in_use", "another set-up or undo is at work", { hint: "try again when it is done", cause });
  }
  try {
    return await work();
  } finally {
    const { promise: closed, resolve: close } = Promise.withResolvers<void>();
    server.close(() => close());
    await closed;
  }
}
