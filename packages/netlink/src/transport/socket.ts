/**
 * Requests over one NETLINK_ROUTE socket (netlink(7), RFC 3549), one at a time and in order.
 *
 * The kernel carries a request out inside send(2), and may wait there: for the rtnl lock, or for an RCU grace period. So
 * sends run in libuv's pool. The answer is queued when send returns. A dump goes on inside each recv(2), which
 * may wait for the same lock.
 */
import {
  type Acknowledgement,
  decodeAcknowledgement,
  decodeDone,
  decodeMessages,
  type MessageHeader,
  type NetlinkMessage,
  encodeMessage,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_NOOP,
  NLMSG_OVERRUN,
  stampSequence,
} from "../codec/message.ts";
import type { MessageWriter } from "../codec/writer.ts";
import { errnoError, invalidArgument, NetlinkError } from "../errors.ts";
import { DatagramBatch } from "./datagram-batch.ts";
import { type Libc, libc } from "./libc.ts";
import { checkSource } from "./source.ts";

const AF_NETLINK = 16;
/** SOCK_RAW | SOCK_CLOEXEC. */
const SOCKET_TYPE = 3 | 0o2000000;
export const NETLINK_ROUTE = 0;
export const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const MSG_DONTWAIT = 0x40;
/** Makes recv report a datagram's full length, so that a cut one is noticed. */
const MSG_TRUNC = 0x20;
/** struct sockaddr_nl: family, padding, port id, groups. */
const ADDRESS_BYTES = 12;

const EAGAIN = 11;
const EINTR = 4;
const EMSGSIZE = 90;
const ENOBUFS = 105;

/** The kernel fills at most 32 KiB of a dump at a time when the reader's buffer allows it. */
const INITIAL_BUFFER_BYTES = 32 * 1024;
/** A host with a thousand links dumps them in some forty parts. */
const PARTS_AT_ONCE = 12;
/** A single answer beyond this is refused: the largest real ones (links with many virtual functions) stay below. */
const MAX_BUFFER_BYTES = 4 * 1024 * 1024;
/** Their acknowledgements, under 1 KiB of the kernel's accounting each, fit into the smallest usual receive buffer. */
const CHANGES_PER_SEND = 64;
/** Sequence numbers start over after this one. */
const MAX_SEQUENCE = 0x7fff_ffff;
/** How often a question is asked again when its answer was lost, or the table changed during it. */
const ATTEMPTS = 8;

/** What a request is about, for the error that it may end in. */
export interface RequestContext {
  readonly operation: string;
  readonly object?: string | undefined;
}

export interface Request extends RequestContext {
  readonly type: number;
  readonly flags?: number;
  /** Takes a dump whose parts may not fit together, because the table changed, instead of repeating it. */
  readonly acceptInterrupted?: boolean | undefined;
  readonly write: (writer: MessageWriter) => void;
}

/** A bound NETLINK_ROUTE socket of the calling thread's network namespace. Throws NetlinkError. */
export function openRouteSocket(c: Libc): number {
  return openNetlinkSocket(c, NETLINK_ROUTE);
}

/** The same for another protocol of netlink(7). */
export function openNetlinkSocket(c: Libc, protocol: number): number {
  const fd = c.socket(AF_NETLINK, SOCKET_TYPE, protocol);
  if (fd < 0) throw errnoError(-fd, "open netlink socket");
  const address = Buffer.alloc(ADDRESS_BYTES);
  address.writeUInt16LE(AF_NETLINK, 0);
  const bound = c.bind(fd, address);
  if (bound < 0) {
    c.close(fd);
    throw errnoError(-bound, "bind netlink socket");
  }
  return fd;
}

/** Reads a datagram if there is one: its length, 0 for one that is not the kernel's, or -errno. Never waits. */
export function receiveNow(c: Libc, fd: number, buffer: Buffer): number {
  const source = Buffer.alloc(ADDRESS_BYTES);
  return checkSource(c.receive(fd, buffer, MSG_DONTWAIT | MSG_TRUNC, source), source);
}

export class RequestSocket {
  readonly #libc: Libc;
  #fd = -1;
  #buffer = Buffer.alloc(0);
  /** For dumps; absent where this machine does without. */
  #parts: DatagramBatch | undefined;
  #sequence = 0;
  #tail: Promise<unknown> = Promise.resolve();
  #closed = false;
  /** The changes that will go out together when it is their turn; more may join until then. */
  #batch: { readonly changes: Change[]; readonly outcomes: Promise<(NetlinkError | undefined)[]> } | undefined;

  constructor() {
    this.#libc = libc();
  }

  /** Opens the socket now rather than at the first request, so that its network namespace is the current one. */
  open(): void {
    if (this.#fd !== -1) return;
    const c = this.#libc;
    this.#fd = openRouteSocket(c);
    if (this.#buffer.length === 0) this.#buffer = Buffer.alloc(INITIAL_BUFFER_BYTES);
    // Kernels before 4.20 lack one or the other; everything works without, with fewer words and more bytes.
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK]) {
      c.setsockopt(this.#fd, SOL_NETLINK, option, 1);
    }
  }

  /**
   * Carries a change out and waits for its acknowledgement. Changes that are waiting for the socket together go out in
   * one send(2), in order; one that fails does not keep the next from being tried.
   */
  async change(request: Request): Promise<void> {
    const message = encode(request, (request.flags ?? 0) | NLM_F_ACK);
    let batch = this.#batch;
    if (batch === undefined || batch.changes.length === CHANGES_PER_SEND) {
      const changes: Change[] = [];
      const outcomes = this.#exclusive(() => {
        if (this.#batch?.changes === changes) this.#batch = undefined;
        return this.#changeTogether(changes);
      });
      batch = { changes, outcomes };
      this.#batch = batch;
    }
    const index = batch.changes.push({ request, message }) - 1;
    const error = (await batch.outcomes)[index];
    if (error !== undefined) throw error;
  }

  async #changeTogether(changes: readonly Change[]): Promise<(NetlinkError | undefined)[]> {
    const [first] = changes;
    if (first === undefined) return [];
    this.open();
    if (this.#sequence > MAX_SEQUENCE - CHANGES_PER_SEND) this.#sequence = 0;
    for (const { message } of changes) stampSequence(message, ++this.#sequence);
    const last = this.#sequence;
    const sent = await this.#libc.sendAsync(this.#fd, Buffer.concat(changes.map(({ message }) => message)), 0);
    if (sent < 0) throw errnoError(-sent, first.request.operation, first.request.object);
    const outcomes: (NetlinkError | undefined)[] = Array.from(changes, () => undefined);
    let waiting = changes.length;
    while (waiting > 0) {
      for (const message of decodeMessages(await this.#receive(first.request, false))) {
        const index = message.sequence - (last - changes.length + 1);
        const request = changes[index]?.request;
        if (message.type !== NLMSG_ERROR || request === undefined) continue;
        waiting -= 1;
        const { errno, message: words } = decodeAcknowledgement(message.flags, message.body);
        if (errno !== 0) outcomes[index] = errnoError(errno, request.operation, request.object, words);
      }
    }
    return outcomes;
  }

  /** Asks for one object: the first answer that `decode` makes something of. */
  get<Result>(request: Request, decode: (message: NetlinkMessage) => Result | undefined): Promise<Result | undefined> {
    return this.#repeating(async () => {
      let result: Result | undefined;
      await this.#send(request, (request.flags ?? 0) | NLM_F_ACK);
      const answered = (message: NetlinkMessage): boolean => {
        if (message.type === NLMSG_ERROR) {
          throwIfFailed(decodeAcknowledgement(message.flags, message.body), request);
          return true;
        }
        result ??= decode(message);
        return false;
      };
      await this.#receiveUntil(request, answered, false);
      return result;
    });
  }

  /**
   * Dumps a table: what `decode` makes of each entry. A dump during which the table changed, or a part of which was lost,
   * is repeated; EINTR when that never ends.
   */
  dump<Result>(request: Request, decode: (message: NetlinkMessage) => Result | undefined): Promise<Result[]> {
    let interruptions = 0;
    return this.#repeating(async () => {
      for (;;) {
        const { results, interrupted } = await this.#dumpOnce(request, decode);
        if (!interrupted || request.acceptInterrupted === true) return results;
        interruptions += 1;
        if (interruptions >= ATTEMPTS) throw errnoError(EINTR, request.operation, request.object, "it kept changing");
      }
    });
  }

  /** Waits for the request that is running, then closes. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#tail.catch(() => undefined);
    this.#drop();
  }

  async #dumpOnce<Result>(
    request: Request,
    decode: (message: NetlinkMessage) => Result | undefined,
  ): Promise<{ results: Result[]; interrupted: boolean }> {
    const results: Result[] = [];
    let interrupted = false;
    await this.#send(request, (request.flags ?? 0) | NLM_F_DUMP);
    const done = (message: NetlinkMessage): boolean => {
      if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
      if (message.type === NLMSG_DONE) {
        throwIfFailed(decodeDone(message.flags, message.body), request);
        return true;
      }
      if (message.type === NLMSG_ERROR) {
        throwIfFailed(decodeAcknowledgement(message.flags, message.body), request);
        return true;
      }
      const result = decode(message);
      if (result !== undefined) results.push(result);
      return false;
    };
    await this.#receiveUntil(request, done, true);
    return { results, interrupted };
  }

  async #send(request: Request, flags: number): Promise<void> {
    const message = encode(request, flags);
    this.open();
    this.#sequence = (this.#sequence % MAX_SEQUENCE) + 1;
    stampSequence(message, this.#sequence);
    const sent = await this.#libc.sendAsync(this.#fd, message, 0);
    if (sent < 0) throw errnoError(-sent, request.operation, request.object);
  }

  /** Hands each message that answers the current request to `isLast`, until that says so. */
  async #receiveUntil(
    request: RequestContext,
    isLast: (message: NetlinkMessage) => boolean,
    mayWait: boolean,
  ): Promise<void> {
    for (;;) {
      for (const datagram of mayWait ? await this.#receiveParts(request) : [await this.#receive(request, false)]) {
        for (const message of decodeMessages(datagram)) {
          if (message.sequence !== this.#sequence || message.type === NLMSG_NOOP) continue;
          if (message.type === NLMSG_OVERRUN) throw errnoError(ENOBUFS, request.operation, request.object);
          if (isLast(message)) return;
        }
      }
    }
  }

  /** Parts of a dump, at least one. */
  async #receiveParts(request: RequestContext): Promise<readonly Buffer[]> {
    if (!DatagramBatch.isPossible) return [await this.#receive(request, true)];
    for (;;) {
      this.#parts ??= new DatagramBatch(this.#libc, PARTS_AT_ONCE, this.#buffer.length);
      const received = await this.#parts.receive(this.#fd, MSG_DONTWAIT | MSG_TRUNC);
      if (typeof received === "number") await this.#nothingCame(received, request);
      else {
        const parts = received.map((part) => (typeof part === "number" ? this.#tooLong(part, request) : part));
        if (parts.length > 0) return parts;
      }
    }
  }

  async #receive(request: RequestContext, mayWait: boolean): Promise<Buffer> {
    const c = this.#libc;
    for (;;) {
      let length: number;
      if (mayWait) {
        const source = Buffer.alloc(ADDRESS_BYTES);
        length = await c.receiveAsync(this.#fd, this.#buffer, MSG_DONTWAIT | MSG_TRUNC, source);
        length = checkSource(length, source);
      } else length = receiveNow(c, this.#fd, this.#buffer);
      if (length > this.#buffer.length) this.#tooLong(length, request);
      if (length > 0) return this.#buffer.subarray(0, length);
      if (length < 0) await this.#nothingCame(length, request);
    }
  }

  /** Makes room for the next attempt. */
  #tooLong(length: number, request: RequestContext): never {
    if (length > MAX_BUFFER_BYTES) throw errnoError(EMSGSIZE, request.operation, request.object);
    this.#buffer = Buffer.alloc(length * 2);
    this.#parts = undefined;
    throw new LostAnswer(EMSGSIZE, request);
  }

  /** @param result -errno of a receiving; waits where that was only for want of anything */
  async #nothingCame(result: number, request: RequestContext): Promise<void> {
    if (result === -EAGAIN) await this.#readable();
    else if (result === -ENOBUFS) throw new LostAnswer(ENOBUFS, request);
    else if (result !== -EINTR) throw errnoError(-result, request.operation, request.object);
  }

  #readable(): Promise<void> {
    return new Promise((resolve) => {
      const watch = this.#libc.onceReadable(this.#fd, () => {
        watch.close();
        resolve();
      });
    });
  }

  /** Runs a task that changes nothing, and again on a fresh socket when its answer was lost. */
  #repeating<Result>(task: () => Promise<Result>): Promise<Result> {
    // A change that comes after a question must not go out before it.
    this.#batch = undefined;
    return this.#exclusive(async () => {
      for (let attempt = 1; ; attempt++) {
        try {
          return await task();
        } catch (error) {
          if (!(error instanceof LostAnswer) || attempt >= ATTEMPTS) throw error;
          this.#drop();
        }
      }
    });
  }

  #exclusive<Result>(task: () => Promise<Result>): Promise<Result> {
    if (this.#closed) {
      return Promise.reject(new NetlinkError({ code: "EBADF", errno: 9, operation: "use netlink", reason: "closed" }));
    }
    const run = this.#tail.then(task).catch((error: unknown) => {
      // An answer that was not read to its end would be taken for the next one's: start over with a fresh socket.
      if (!(error instanceof NetlinkError) || error instanceof LostAnswer || error.code === "EBADMSG") this.#drop();
      throw error;
    });
    this.#tail = run.catch(() => undefined);
    return run;
  }

  #drop(): void {
    if (this.#fd !== -1) this.#libc.close(this.#fd);
    this.#fd = -1;
  }
}

interface Change {
  readonly request: Request;
  /** Encoded, but for its sequence number. */
  readonly message: Buffer;
}

/** EINVAL for a number that does not fit into its field. */
function encode(request: Request, flags: number): Buffer {
  const header: MessageHeader = { type: request.type, flags: flags | NLM_F_REQUEST };
  try {
    return encodeMessage(header, request.write);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw invalidArgument(request.operation, request.object ?? "", error.message);
  }
}

/** The kernel carried the request out, but its answer did not reach us. */
class LostAnswer extends NetlinkError {
  constructor(errno: number, context: RequestContext) {
    const code = errno === ENOBUFS ? "ENOBUFS" : "EMSGSIZE";
    super({ code, errno, ...context, reason: "the kernel's answer was lost, so the outcome is not known" });
  }
}

function throwIfFailed(acknowledgement: Acknowledgement, context: RequestContext): void {
  if (acknowledgement.errno === 0) return;
  throw errnoError(acknowledgement.errno, context.operation, context.object, acknowledgement.message);
}
