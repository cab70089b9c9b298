/** Settings of a link that rtnetlink does not have (include/uapi/linux/ethtool.h, netdevice(7), SIOCETHTOOL). */
import { errnoError } from "../errors.ts";
import { libc } from "./libc.ts";

const AF_INET = 2;
/** SOCK_DGRAM | SOCK_CLOEXEC. */
const SOCKET_TYPE = 2 | 0o2000000;
const ETHTOOL_GTXCSUM = 0x16;
const ETHTOOL_STXCSUM = 0x17;

/**
 * struct ethtool_value: a command, and the value that it sets or is answered with. Not on the event loop's thread: the kernel takes the lock of all links for it
 * (rtnl_lock), which whoever deletes many of them holds for tenths of a second.
 */
async function ask(operation: string, link: string, command: number, value: number): Promise<number> {
  const c = libc();
  const fd = c.socket(AF_INET, SOCKET_TYPE, 0);
  if (fd < 0) throw errnoError(-fd, operation, link);
  try {
    const request = Buffer.alloc(8);
    request.writeUInt32LE(command, 0);
    request.writeUInt32LE(value, 4);
    const result = await c.ethtoolAsync(fd, link, request);
    if (result < 0) throw errnoError(-result, operation, link);
    return request.readUInt32LE(4);
  } finally {
    c.close(fd);
  }
}

/**
 * Whether a link takes frames whose checksum is still to be filled in. Where it does not, the kernel fills it in before the link
 * gets the frame, and cuts into pieces what is longer than a frame may be.
 */
export async function hasChecksumOffload(link: string): Promise<boolean> {
  return (await ask("read checksum offload", link, ETHTOOL_GTXCSUM, 0)) !== 0;
}

/** Turns that on or off. ENODEV when there is no such link. */
export async function setChecksumOffload(link: string, on: boolean): Promise<void> {
  await ask("set checksum offload", link, ETHTOOL_STXCSUM, on ? 1 : 0);
}
