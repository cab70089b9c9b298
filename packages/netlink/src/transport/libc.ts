/**
 * The few functions of the C library that Node does not offer, through koffi. Nothing is loaded before the first call of
 * `libc()`: a program on another platform may import this package and never pay for it, or fail by it.
 *
 * Each function has a form for the event loop's thread (`close`) for calls that never wait, and one for libuv's pool
 * (`sendAsync`) for calls that may wait for the kernel's rtnl lock or an RCU grace period. Both give -errno on failure,
 * as the system call itself does.
 */
import { createRequire } from "node:module";
import { endianness } from "node:os";
import { NetlinkError } from "../errors.ts";

/** Calls in libuv's pool at a time. The pool has 4 threads by default; files and DNS need theirs while we wait. */
const MAX_CONCURRENT_CALLS = 2;
const ENODEV = 19;

export interface Libc {
  open(path: string, flags: number): number;
  close(fd: number): number;
  closeAsync(fd: number): Promise<number>;
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Buffer): number;
  getsockname(fd: number, address: Buffer): number;
  setsockopt(fd: number, level: number, option: number, value: number): number;
  sendAsync(fd: number, bytes: Buffer, flags: number): Promise<number>;
  receive(fd: number, buffer: Buffer, flags: number, source: Buffer): number;
  receiveAsync(fd: number, buffer: Buffer, flags: number, source: Buffer): Promise<number>;
  /** ioctl(2) with a pointer argument. */
  ioctl(fd: number, request: number, argument: Buffer): number;
  ioctlAsync(fd: number, request: number, argument: Buffer): Promise<number>;
  /** ioctl(2) whose argument is the number itself. */
  ioctlNumberAsync(fd: number, request: number, argument: number): Promise<number>;
  /** The index of a link, or -ENODEV. */
  nameToIndex(name: string): number;
  nameToIndexAsync(name: string): Promise<number>;
  /** Calls `ready` once when `fd` is readable, off the event loop's critical path. */
  onceReadable(fd: number, ready: () => void): ReadableWatch;
}

export interface ReadableWatch {
  /** Ends the watch; `ready` is not called after it. */
  close(): void;
}

let loaded: Libc | undefined;

/** The C library. EUNSUPPORTED where rtnetlink does not exist or koffi can not be loaded. */
export function libc(): Libc {
  loaded ??= load();
  return loaded;
}

function unsupported(reason: string): NetlinkError {
  return new NetlinkError({ code: "EUNSUPPORTED", operation: "open netlink", reason });
}

/** Why this machine can't be spoken to, or undefined. Pure: tests call it with other platforms. */
export function unsupportedReason(platform: string, endianness: "BE" | "LE"): string | undefined {
  if (platform !== "linux") return `rtnetlink is Linux's own, and this is ${platform}`;
  return endianness === "LE" ? undefined : "only little-endian machines are supported";
}

type Call = ((...args: unknown[]) => number) & { async: (...args: unknown[]) => void };

function load(): Libc {
  const reason = unsupportedReason(process.platform, endianness());
  if (reason !== undefined) throw unsupported(reason);
  const koffi = loadKoffi();
  // The process's own symbols: the C library that Node runs on, whichever that is.
  const library = koffi.load(null);
  const declare = (name: string, result: string, parameters: string[]) =>
    library.func(name, result, parameters) as unknown as Call;
  const lastErrno = () => koffi.errno();
  const now = (call: Call, ...args: unknown[]): number => {
    const result = call(...args);
    return result < 0 ? -lastErrno() : result;
  };
  const pool = new CallPool(lastErrno);

  const open = declare("open", "int", ["const char *", "int"]);
  const close = declare("close", "int", ["int"]);
  const socket = declare("socket", "int", ["int", "int", "int"]);
  const bind = declare("bind", "int", ["int", "void *", "uint32_t"]);
  const getsockname = declare("getsockname", "int", ["int", "void *", "void *"]);
  const setsockopt = declare("setsockopt", "int", ["int", "int", "int", "void *", "uint32_t"]);
  const send = declare("send", "int64_t", ["int", "void *", "size_t", "int"]);
  const recvfrom = declare("recvfrom", "int64_t", ["int", "void *", "size_t", "int", "void *", "void *"]);
  // Variadic in C. On every Linux ABI that koffi supports, integers and pointers go the same way either way.
  const ioctl = declare("ioctl", "int", ["int", "unsigned long", "void *"]);
  const ioctlNumber = declare("ioctl", "int", ["int", "unsigned long", "uintptr_t"]);
  const nameToIndex = declare("if_nametoindex", "uint32_t", ["const char *"]);

  return {
    open: (path, flags) => now(open, path, flags),
    close: (fd) => now(close, fd),
    closeAsync: (fd) => pool.run(close, fd),
    socket: (domain, type, protocol) => now(socket, domain, type, protocol),
    bind: (fd, address) => now(bind, fd, address, address.length),
    getsockname: (fd, address) => now(getsockname, fd, address, lengthCell(address.length)),
    setsockopt: (fd, level, option, value) => now(setsockopt, fd, level, option, lengthCell(value), 4),
    sendAsync: (fd, bytes, flags) => pool.run(send, fd, bytes, bytes.length, flags),
    receive: (fd, buffer, flags, source) =>
      now(recvfrom, fd, buffer, buffer.length, flags, source, lengthCell(source.length)),
    receiveAsync: (fd, buffer, flags, source) =>
      pool.run(recvfrom, fd, buffer, buffer.length, flags, source, lengthCell(source.length)),
    ioctl: (fd, request, argument) => now(ioctl, fd, request, argument),
    ioctlAsync: (fd, request, argument) => pool.run(ioctl, fd, request, argument),
    ioctlNumberAsync: (fd, request, argument) => pool.run(ioctlNumber, fd, request, argument),
    nameToIndex: (name) => nameToIndex(name) || -ENODEV,
    nameToIndexAsync: async (name) => (await pool.run(nameToIndex, name)) || -ENODEV,
    onceReadable: (fd, ready) => {
      let closed = false;
      // koffi calls back outside Node's task scope, where promises would not go on: an immediate has the scope.
      const handle = koffi.node.poll(fd, () => {
        handle.stop();
        setImmediate(() => {
          if (!closed) ready();
        });
      });
      return {
        close: () => {
          closed = true;
          handle.close();
        },
      };
    },
  };
}

function loadKoffi(): typeof import("koffi") {
  try {
    return createRequire(import.meta.url)("koffi") as typeof import("koffi");
  } catch (error) {
    throw unsupported(
      `koffi can not be loaded: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`,
    );
  }
}

/** A C int or socklen_t in memory. */
function lengthCell(value: number): Buffer {
  const cell = Buffer.alloc(4);
  cell.writeInt32LE(value, 0);
  return cell;
}

/**
 * Runs calls in libuv's pool, at most MAX_CONCURRENT_CALLS at a time and the others in order. The arguments stay
 * referenced until the call is over, because the kernel writes into them.
 */
class CallPool {
  readonly #lastErrno: () => number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(lastErrno: () => number) {
    this.#lastErrno = lastErrno;
  }

  run(call: Call, ...args: unknown[]): Promise<number> {
    return new Promise((resolve, reject) => {
      const start = () => {
        this.#running += 1;
        const finish = (settle: () => void) => {
          args.length = 0;
          this.#running -= 1;
          this.#waiting.shift()?.();
          settle();
        };
        try {
          call.async(...args, (error: unknown, result: number) => {
            // errno is the pool thread's own, and koffi shows it here only, before anything else runs.
            const value = result < 0 ? -this.#lastErrno() : result;
            finish(() => (error === null || error === undefined ? resolve(value) : reject(error as Error)));
          });
        } catch (error) {
          finish(() => reject(error as Error));
        }
      };
      if (this.#running < MAX_CONCURRENT_CALLS) start();
      else this.#waiting.push(start);
    });
  }
}
