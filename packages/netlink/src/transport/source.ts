/** One received datagram's length, or -errno. A datagram that some other process sent gives 0 bytes: the kernel's port id is 0 (netlink(7)). */
export function checkSource(length: number, source: Buffer): number {
  return length > 0 && source.readUInt32LE(4) !== 0 ? 0 : length;
}
