/**
 * Frames that pass by a link, both ways, as a packet socket shows them (packet(7)): to watch, not to take. Reads never wait, and no
 * thread does: the socket is one more descriptor of the event loop.
 */
import { type BpfInstruction, encodeProgram } from "./codec/traffic.ts";
import { errnoError } from "./errors.ts";
import { libc, type ReadableWatch } from "./transport/libc.ts";

const AF_PACKET = 17;
/** SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK. */
const SOCKET_TYPE = 3 | 0o2000000 | 0o4000;
/** ETH_P_ALL in network byte order: only such a socket sees what leaves, too. */
const ALL_PROTOCOLS = 0x0300;
/** struct sockaddr_ll: family, protocol, index, hardware type, packet type, and the address. */
const ADDRESS_BYTES = 20;
const PACKET_TYPE_OFFSET = 10;
/** PACKET_OUTGOING: the frame leaves by the link. Whoever sent it can't choose this. */
const OUTGOING = 4;
const MSG_DONTWAIT = 0x40;
const EAGAIN = 11;
const EINTR = 4;
/** Longer frames are cut; what a filter picks by its first bytes is all there. */
const BUFFER_BYTES = 4096;
/** A sender, who may be hostile, must not keep the event loop here: so many frames at a time, and then a pause. The kernel drops what is too much. */
const FRAMES_PER_TURN = 64;
const PAUSE_MS = 10;

export interface WatchedFrame {
  /** `out`: towards whatever is behind the link; for a tap, towards its guest. */
  readonly direction: "in" | "out";
  /** From its Ethernet header on. The memory is used again after the call. */
  readonly frame: Buffer;
}

export interface PacketWatchOptions {
  /** The link's index. */
  readonly link: number;
  /** Says in the kernel which frames are of interest: classic BPF over the frame, 0 for one that is not. */
  readonly filter: readonly BpfInstruction[];
  readonly onFrame: (frame: WatchedFrame) => void;
  /** The link is gone or down, or the socket is of no more use; nothing comes afterwards. */
  readonly onEnd: () => void;
}

/** Opens the watch, which is in force when this returns. Close it; it ends by itself when the link goes. Needs CAP_NET_RAW. */
export function watchPackets({ link, filter, onFrame, onEnd }: PacketWatchOptions): { close(): void } {
  const c = libc();
  const operation = "watch packets";
  // Of no protocol at first, so that no frame comes before the filter is there.
  const fd = c.socket(AF_PACKET, SOCKET_TYPE, 0);
  if (fd < 0) throw errnoError(-fd, operation, `#${link}`);
  const address = Buffer.alloc(ADDRESS_BYTES);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16LE(ALL_PROTOCOLS, 2);
  address.writeInt32LE(link, 4);
  const failed = [c.attachFilter(fd, encodeProgram(filter)), c.bind(fd, address)].find((result) => result < 0);
  if (failed !== undefined) {
    c.close(fd);
    throw errnoError(-failed, operation, `#${link}`);
  }

  const buffer = Buffer.alloc(BUFFER_BYTES);
  const source = Buffer.alloc(ADDRESS_BYTES);
  let watch: ReadableWatch | undefined;
  let pause: NodeJS.Timeout | undefined;
  let closed = false;
  const close = () => {
    if (closed) return;
    closed = true;
    watch?.close();
    clearTimeout(pause);
    c.close(fd);
  };
  const read = () => {
    watch?.close();
    for (let count = 0; count < FRAMES_PER_TURN && !closed; count += 1) {
      const length = c.receive(fd, buffer, MSG_DONTWAIT, source);
      if (length === -EAGAIN) break;
      if (length === -EINTR) continue;
      if (length < 0) {
        // ENETDOWN: the link went down, or away.
        close();
        onEnd();
        return;
      }
      const direction = source.readUInt8(PACKET_TYPE_OFFSET) === OUTGOING ? "out" : "in";
      onFrame({ direction, frame: buffer.subarray(0, length) });
    }
    if (closed) return;
    pause = setTimeout(() => (watch = c.onceReadable(fd, read)), PAUSE_MS);
  };
  watch = c.onceReadable(fd, read);
  return { close };
}
