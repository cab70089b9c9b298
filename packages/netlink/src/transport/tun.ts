/** /dev/net/tun (Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h). */
import { errnoError } from "../errors.ts";
import type { Libc } from "./libc.ts";

const TUN_DEVICE = "/dev/net/tun";
/** O_RDWR | O_CLOEXEC. */
const OPEN_FLAGS = 0o2 | 0o2000000;
const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const TUNSETOWNER = 0x400454cc;
const TUNSETGROUP = 0x400454ce;
const TUNGETIFF = 0x800454d2;
const TUNSETCARRIER = 0x400454e2;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFF_PERSIST = 0x0800;
/** Fail with EBUSY when the name is taken, rather than attach to what has it. */
const IFF_TUN_EXCL = 0x8000;
/** struct ifreq: 16 bytes of name, 24 of union. */
const IFREQ_BYTES = 40;
const FLAGS_OFFSET = 16;

const ENOENT = 2;
const EEXIST = 17;
const EBUSY = 16;
const ENODEV = 19;
const EINVAL = 22;

/** A descriptor that is no interface yet. Throws NetlinkError. */
export function openTunDevice(c: Libc, operation: string, name: string): number {
  const fd = c.open(TUN_DEVICE, OPEN_FLAGS);
  if (fd >= 0) return fd;
  const missing = fd === -ENOENT || fd === -ENODEV;
  throw errnoError(-fd, operation, name, missing ? `${TUN_DEVICE} is missing: load the tun module` : TUN_DEVICE);
}

/** Makes `fd` a new tap. EEXIST when the name is taken by any link. */
export async function makeTap(c: Libc, fd: number, name: string): Promise<void> {
  const flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL;
  const result = await c.ioctlAsync(fd, TUNSETIFF, interfaceRequest(name, flags));
  if (result >= 0) return;
  const taken = result === -EBUSY || result === -EEXIST;
  throw errnoError(taken ? EEXIST : -result, "create tap", name, taken ? "a link of this name exists" : undefined);
}

export async function setTapOwner(
  c: Libc,
  fd: number,
  name: string,
  owner: number | undefined,
  group: number | undefined,
): Promise<void> {
  const settings = [
    [TUNSETOWNER, owner, "set tap owner"],
    [TUNSETGROUP, group, "set tap group"],
  ] as const;
  for (const [request, id, operation] of settings) {
    if (id === undefined) continue;
    const result = await c.ioctlNumberAsync(fd, request, id);
    if (result < 0) throw errnoError(-result, operation, name);
  }
}

/**
 * Takes the carrier away until somebody opens the tap. Without this, a tap that comes up while we hold it open would be
 * taken for a live port: the kernel gives it IPv6 addresses, and its bridge starts to forward.
 */
export async function dropCarrier(c: Libc, fd: number, name: string): Promise<void> {
  const result = await c.ioctlAsync(fd, TUNSETCARRIER, Buffer.alloc(4));
  // Kernels before 5.0 have no such request; there the carrier goes when the descriptor is closed.
  if (result < 0 && result !== -EINVAL) throw errnoError(-result, "create tap", name);
}

/** The tap stays when its last descriptor is closed. */
export async function makePersistent(c: Libc, fd: number, name: string): Promise<void> {
  const result = await c.ioctlNumberAsync(fd, TUNSETPERSIST, 1);
  if (result < 0) throw errnoError(-result, "make tap persistent", name);
}

/** Makes `fd` a queue of an existing persistent tap. ENODEV when there is none, and none is then left behind. */
export async function attachToTap(c: Libc, fd: number, name: string): Promise<void> {
  const operation = "open tap";
  const absent = () => errnoError(ENODEV, operation, name, "there is no persistent tap of this name");
  if (c.nameToIndex(name) < 0) throw absent();
  const result = await c.ioctlAsync(fd, TUNSETIFF, interfaceRequest(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR));
  if (result === -EBUSY) throw errnoError(EBUSY, operation, name, "another process has it open");
  if (result < 0) throw errnoError(-result, operation, name);
  const now = interfaceRequest("", 0);
  // It takes no lock that anybody holds for long.
  const asked = c.ioctl(fd, TUNGETIFF, now);
  if (asked < 0) throw errnoError(-asked, operation, name);
  // Had the tap gone since the first look, TUNSETIFF would have made a fresh one: that one is not persistent, and goes
  // when the caller closes the descriptor.
  if ((now.readUInt16LE(FLAGS_OFFSET) & IFF_PERSIST) === 0) throw absent();
}

function interfaceRequest(name: string, flags: number): Buffer {
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name, 0, 15, "utf8");
  request.writeUInt16LE(flags, FLAGS_OFFSET);
  return request;
}
