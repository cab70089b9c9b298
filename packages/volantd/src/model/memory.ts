import { MIN_MEMORY_MIB, VolantError } from "@volant/contract";

const MIB = 1024 * 1024;

/**
 * The least memory a guest boots with, in MiB: the kernel's own, and its files twice, since the kernel holds the archive while it unpacks it.
 *
 * @param unpackedBytes bytes that the initramfs takes up once unpacked
 */
export function minimumMemoryMib(unpackedBytes: number): number {
  return MIN_MEMORY_MIB + Math.ceil((2 * unpackedBytes) / MIB);
}

/** @throws VolantError `invalid`, saying how much is needed, when `memoryMib` is too little for the guest to boot */
export function checkMemory(memoryMib: number, unpackedBytes: number): void {
  const needed = minimumMemoryMib(unpackedBytes);
  if (memoryMib >= needed) return;
  throw new VolantError(
    "invalid",
    `${memoryMib} MiB of memory are too little: this guest needs at least ${needed} MiB`,
  );
}
