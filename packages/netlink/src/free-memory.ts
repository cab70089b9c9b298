import { libc } from "./transport/libc.ts";

/**
 * Has the C library give back to the kernel what this process has freed: by itself it does so only for what lies above all that is still in use. Here because it takes the C library, which
 * Node does not offer. It costs a millisecond or two, off the event loop, and does nothing where that library has no malloc_trim(3), which is GNU's own.
 */
export async function returnFreeMemory(): Promise<void> {
  await libc().trimAsync();
}
