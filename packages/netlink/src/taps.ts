import { writeLink, type AddressGeneration, RTM_SETLINK } from "./codec/link.ts";
import { errnoError } from "./errors.ts";
import { type LinkRef, resolveIndex, type Session } from "./session.ts";
import { libc } from "./transport/libc.ts";
import { withoutStarts } from "./transport/start-gate.ts";
import { attachToTap, dropCarrier, makePersistent, makeTap, openTunDevice, setTapOwner } from "./transport/tun.ts";
import { checkAlias, checkLinkName, checkMac, checkNumber } from "./validate.ts";

const MAX_U32 = 0xffff_ffff;
/** (uid_t)-1 and (gid_t)-1 mean "nobody in particular", so they are not ids. */
const MAX_ID = MAX_U32 - 1;

/** What becomes of a tap in the same message that brings it up. */
export interface TapAttach {
  /** The bridge that it becomes a port of. */
  readonly master?: LinkRef;
  readonly alias?: string;
  readonly linkGroup?: number;
  /** The default is true. */
  readonly up?: boolean;
  readonly mtu?: number;
  readonly mac?: string;
  /** `none` keeps the host from taking an IPv6 link-local address on the tap. */
  readonly addressGeneration?: AddressGeneration;
}

export interface TapCreate {
  readonly name: string;
  /** The uid that may open it without CAP_NET_ADMIN. */
  readonly owner?: number;
  /** The gid that may. */
  readonly group?: number;
  readonly attach?: TapAttach;
  /** Called with its index once the tap is there, and before it is joined to anything or comes up; a failure takes the tap away again. */
  readonly beforeAttach?: (index: number) => Promise<void>;
}

/** Tap devices, which come from /dev/net/tun rather than from rtnetlink. They are deleted as links. */
export class Taps {
  readonly #session: Session;

  constructor(session: Session) {
    this.#session = session;
  }

  /**
   * Makes a persistent tap (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR) and returns its index. EEXIST when any link has the name.
   *
   * It becomes persistent last: until then it lives by our descriptor alone, so a failure on the way, or the death of
   * this process, takes it away again. A tap that outlives us always has its owner, bridge and alias.
   */
  async create(options: TapCreate): Promise<number> {
    checkTap("create tap", options);
    // A child that is started meanwhile would have a copy of the descriptor for a moment, and nobody could open the tap in that moment.
    return await withoutStarts(() => this.#create(options));
  }

  async #create(options: TapCreate): Promise<number> {
    const operation = "create tap";
    const { name, owner, group, attach = {} } = options;
    const c = libc();
    const fd = openTunDevice(c, operation, name);
    try {
      // Both at once; the descriptor is not closed before either is over.
      const resolving = attach.master === undefined ? undefined : resolveIndex(attach.master, operation, name);
      resolving?.catch(() => undefined);
      await makeTap(c, fd, name);
      const master = await resolving;
      await dropCarrier(c, fd, name);
      await setTapOwner(c, fd, name, owner, group);
      if (options.beforeAttach !== undefined) {
        const made = c.nameToIndex(name);
        if (made < 0) throw errnoError(-made, operation, name, "it was deleted at once");
        await options.beforeAttach(made);
      }
      await this.#session.socket.change({
        operation: "attach tap",
        object: name,
        type: RTM_SETLINK,
        write: (writer) => {
          const { alias, linkGroup, up = true, mtu, mac, addressGeneration } = attach;
          writeLink(writer, 0, { name, master, alias, group: linkGroup, up, mtu, mac, addressGeneration });
        },
      });
      await makePersistent(c, fd, name);
      const index = c.nameToIndex(name);
      if (index < 0) throw errnoError(-index, operation, name, "it was deleted at once");
      return index;
    } finally {
      await c.closeAsync(fd);
    }
  }
}

/**
 * A descriptor on an existing persistent tap (with a virtio-net header), to be handed to a child process in `stdio`. It is
 * close-on-exec otherwise. ENODEV when there is no such tap, EBUSY when another process has it open. Close it with
 * `closeTap` once the child has it; the tap stays.
 */
export async function openTap(name: string): Promise<number> {
  checkLinkName("open tap", name);
  const c = libc();
  const fd = openTunDevice(c, "open tap", name);
  try {
    await attachToTap(c, fd, name);
    return fd;
  } catch (error) {
    await c.closeAsync(fd);
    throw error;
  }
}

/**
 * Closes what `openTap` gave. Off the event loop: when it was the last descriptor, the kernel takes the rtnl lock and
 * waits for packets in flight.
 */
export async function closeTap(fd: number): Promise<void> {
  const result = await libc().closeAsync(fd);
  if (result < 0) throw errnoError(-result, "close tap", String(fd));
}

function checkTap(operation: string, { name, owner, group, attach = {} }: TapCreate): void {
  checkLinkName(operation, name);
  if (owner !== undefined) checkNumber(operation, name, "the owner", owner, [0, MAX_ID]);
  if (group !== undefined) checkNumber(operation, name, "the group", group, [0, MAX_ID]);
  if (attach.alias !== undefined) checkAlias(operation, name, attach.alias);
  if (attach.mac !== undefined) checkMac(operation, name, attach.mac);
  if (attach.mtu !== undefined) checkNumber(operation, name, "the mtu", attach.mtu, [68, 65_521]);
  if (attach.linkGroup !== undefined) checkNumber(operation, name, "the link group", attach.linkGroup, [0, MAX_U32]);
}
