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
import type { ChildStart } from "../child-process.ts";
import { NetlinkError } from "../errors.ts";
import { type SpawnCalls, spawnProcess } from "./spawn.ts";

/** Calls in libuv's pool at a time. The pool has 4 threads by default; files and DNS need theirs while we wait. */
const MAX_CONCURRENT_CALLS = 2;
const ENODEV = 19;
const ENOSYS = 38;
/** __NR_bpf: which number it is depends on the machine (include/uapi/asm-generic/unistd.h, arch/x86/entry/syscalls/syscall_64.tbl). */
const BPF_CALL: Readonly<Record<string, number>> = { x64: 321, arm64: 280, riscv64: 280, loong64: 280 };
/** include/uapi/linux/sockios.h, include/uapi/asm-generic/socket.h. */
const SIOCETHTOOL = 0x8946;
const SOL_SOCKET = 1;
const SO_ATTACH_FILTER = 26;
/** __NR_pidfd_open, the same on every machine since it came (include/uapi/asm-generic/unistd.h). */
const PIDFD_OPEN_CALL = 434;
/** include/uapi/asm-generic/fcntl.h, linux/fcntl.h. */
const F_DUPFD_CLOEXEC = 1030;
const WNOHANG = 1;
/** include/uapi/asm-generic/signal-defs.h. */
const SIG_IGN = 1;
/** Children that are being started at a time: most of the work is the kernel's, and the pool's threads have other work. */
const MAX_CONCURRENT_STARTS = 1;
const NO_BYTES: readonly number[] = Array.from({ length: 16 }, () => 0);

export interface Libc {
  open(path: string, flags: number): number;
  close(fd: number): number;
  closeAsync(fd: number): Promise<number>;
  /** memfd_create(2). */
  memoryFile(name: string, flags: number): number;
  /** malloc_trim(3) with no padding. */
  trimAsync(): Promise<number>;
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Buffer): number;
  listen(fd: number, backlog: number): number;
  getsockname(fd: number, address: Buffer): number;
  setsockopt(fd: number, level: number, option: number, value: number): number;
  sendAsync(fd: number, bytes: Buffer, flags: number): Promise<number>;
  receive(fd: number, buffer: Buffer, flags: number, source: Buffer): number;
  receiveAsync(fd: number, buffer: Buffer, flags: number, source: Buffer): Promise<number>;
  /** recvmmsg(2), in the pool: how many datagrams there were. `headers` is an array of struct mmsghdr; what it points into is the caller's to keep. */
  receiveManyAsync(fd: number, headers: Buffer, count: number, flags: number): Promise<number>;
  /** Where a buffer is in memory, for a structure that points to it. */
  addressOf(buffer: Buffer): bigint;
  /** ioctl(2) with a pointer argument. */
  ioctl(fd: number, request: number, argument: Buffer): number;
  ioctlAsync(fd: number, request: number, argument: Buffer): Promise<number>;
  /** ioctl(2) whose argument is the number itself. */
  ioctlNumberAsync(fd: number, request: number, argument: number): Promise<number>;
  /** SIOCETHTOOL for a link: `request` begins with the command, and takes the answer. */
  ethtoolAsync(fd: number, link: string, request: Buffer): Promise<number>;
  /** SO_ATTACH_FILTER: a program of classic BPF, 8 bytes for each instruction. */
  attachFilter(fd: number, program: Buffer): number;
  /** bpf(2): `request` is its attributes, into which the addresses of up to three buffers go. -ENOSYS where its number is not known. */
  bpf(command: number, request: Buffer, pointers: readonly (readonly [offset: number, target: Buffer])[]): number;
  /** The index of a link, or -ENODEV. */
  nameToIndex(name: string): number;
  /** posix_spawn(3), in the pool: the child's pid. */
  spawn(start: ChildStart): Promise<number>;
  /** waitpid(2) that does not wait: `result` is 0 while the child runs, its pid once it has ended, or -ECHILD. */
  waitNow(pid: number): { readonly result: number; readonly status: number };
  /** pidfd_open(2): readable once the process has ended. -ENOSYS before Linux 5.3. */
  openProcess(pid: number): number;
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

/** Some C libraries have what others have not. */
function whereThere(declare: () => Call): Call | undefined {
  try {
    return declare();
  } catch {
    return undefined;
  }
}

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
  const addressOf = (buffer: Buffer): bigint => BigInt(koffi.address(buffer));
  const pool = new CallPool(lastErrno, MAX_CONCURRENT_CALLS);
  const starts = new CallPool(lastErrno, MAX_CONCURRENT_STARTS);

  const open = declare("open", "int", ["const char *", "int"]);
  const close = declare("close", "int", ["int"]);
  const memoryFile = declare("memfd_create", "int", ["const char *", "unsigned int"]);
  const trim = whereThere(() => declare("malloc_trim", "int", ["size_t"]));
  const socket = declare("socket", "int", ["int", "int", "int"]);
  const bind = declare("bind", "int", ["int", "void *", "uint32_t"]);
  const listen = declare("listen", "int", ["int", "int"]);
  const waitpid = declare("waitpid", "int", ["int", "void *", "int"]);
  const setHandler = declare("signal", "intptr_t", ["int", "intptr_t"]);
  const fcntl = declare("fcntl", "int", ["int", "int", "intptr_t"]);
  const initActions = declare("posix_spawn_file_actions_init", "int", ["void *"]);
  const addDuplicate = declare("posix_spawn_file_actions_adddup2", "int", ["void *", "int", "int"]);
  const addDirectory = declare("posix_spawn_file_actions_addchdir_np", "int", ["void *", "const char *"]);
  const destroyActions = declare("posix_spawn_file_actions_destroy", "int", ["void *"]);
  const initAttributes = declare("posix_spawnattr_init", "int", ["void *"]);
  const setFlags = declare("posix_spawnattr_setflags", "int", ["void *", "short"]);
  const setMask = declare("posix_spawnattr_setsigmask", "int", ["void *", "void *"]);
  const setDefaults = declare("posix_spawnattr_setsigdefault", "int", ["void *", "void *"]);
  const destroyAttributes = declare("posix_spawnattr_destroy", "int", ["void *"]);
  const posixSpawn = declare("posix_spawn", "int", ["void *", "const char *", "void *", "void *", "void *", "void *"]);
  const getsockname = declare("getsockname", "int", ["int", "void *", "void *"]);
  const setsockopt = declare("setsockopt", "int", ["int", "int", "int", "void *", "uint32_t"]);
  const send = declare("send", "int64_t", ["int", "void *", "size_t", "int"]);
  const recvfrom = declare("recvfrom", "int64_t", ["int", "void *", "size_t", "int", "void *", "void *"]);
  const recvmmsg = declare("recvmmsg", "int", ["int", "void *", "unsigned int", "int", "void *"]);
  // Variadic in C. On every Linux ABI that koffi supports, integers and pointers go the same way either way.
  const ioctl = declare("ioctl", "int", ["int", "unsigned long", "void *"]);
  const ioctlNumber = declare("ioctl", "int", ["int", "unsigned long", "uintptr_t"]);
  // Structures that hold a pointer: struct ifreq with ifr_data (netdevice(7)), and struct sock_fprog (socket(7)).
  const interfaceRequest = koffi.struct({
    name: koffi.array("char", 16, "String"),
    data: "void *",
    rest: koffi.array("uint8_t", 16),
  });
  const filterProgram = koffi.struct({ length: "uint16_t", filter: "void *" });
  const ioctlEthtool = library.func("ioctl", "int", [
    "int",
    "unsigned long",
    koffi.pointer(interfaceRequest),
  ]) as unknown as Call;
  const setFilter = library.func("setsockopt", "int", [
    "int",
    "int",
    "int",
    koffi.pointer(filterProgram),
    "uint32_t",
  ]) as unknown as Call;
  const syscall = declare("syscall", "int64_t", [
    "int64_t",
    "int64_t",
    "void *",
    "uint64_t",
    "void *",
    "void *",
    "void *",
  ]);
  const nameToIndex = declare("if_nametoindex", "uint32_t", ["const char *"]);

  const spawnCalls: SpawnCalls = {
    initActions,
    addDuplicate,
    addDirectory,
    destroyActions,
    initAttributes,
    setFlags,
    setMask,
    setDefaults,
    destroyAttributes,
    ignore: (signal) => void setHandler(signal, SIG_IGN),
    copyAbove: (fd, least) => now(fcntl, fd, F_DUPFD_CLOEXEC, least),
    close: (fd) => now(close, fd),
    addressOf,
    async run(pid, path, actions, attributes, args, env, kept) {
      const result = await starts.run(posixSpawn, pid, path, actions, attributes, args, env);
      // What the tables point into must not be collected before the call is over.
      return kept.length >= 0 ? result : 0;
    },
  };

  return {
    open: (path, flags) => now(open, path, flags),
    close: (fd) => now(close, fd),
    closeAsync: (fd) => pool.run(close, fd),
    memoryFile: (name, flags) => now(memoryFile, name, flags),
    trimAsync: async () => (trim === undefined ? 0 : await pool.run(trim, 0)),
    socket: (domain, type, protocol) => now(socket, domain, type, protocol),
    bind: (fd, address) => now(bind, fd, address, address.length),
    listen: (fd, backlog) => now(listen, fd, backlog),
    spawn: (start) => spawnProcess(spawnCalls, start),
    waitNow: (pid) => {
      const status = lengthCell(0);
      const result = now(waitpid, pid, status, WNOHANG);
      return { result, status: status.readInt32LE(0) };
    },
    openProcess: (pid) => Number(now(syscall, PIDFD_OPEN_CALL, pid, null, 0, null, null, null)),
    getsockname: (fd, address) => now(getsockname, fd, address, lengthCell(address.length)),
    setsockopt: (fd, level, option, value) => now(setsockopt, fd, level, option, lengthCell(value), 4),
    sendAsync: (fd, bytes, flags) => pool.run(send, fd, bytes, bytes.length, flags),
    receive: (fd, buffer, flags, source) =>
      now(recvfrom, fd, buffer, buffer.length, flags, source, lengthCell(source.length)),
    receiveAsync: (fd, buffer, flags, source) =>
      pool.run(recvfrom, fd, buffer, buffer.length, flags, source, lengthCell(source.length)),
    receiveManyAsync: (fd, headers, count, flags) => pool.run(recvmmsg, fd, headers, count, flags, null),
    addressOf,
    ioctl: (fd, request, argument) => now(ioctl, fd, request, argument),
    ioctlAsync: (fd, request, argument) => pool.run(ioctl, fd, request, argument),
    ioctlNumberAsync: (fd, request, argument) => pool.run(ioctlNumber, fd, request, argument),
    ethtoolAsync: (fd, link, request) =>
      pool.run(ioctlEthtool, fd, SIOCETHTOOL, { name: link, data: request, rest: NO_BYTES }),
    attachFilter: (fd, program) =>
      now(
        setFilter,
        fd,
        SOL_SOCKET,
        SO_ATTACH_FILTER,
        { length: program.length / 8, filter: program },
        koffi.sizeof(filterProgram),
      ),
    bpf: (command, request, pointers) => {
      const number = BPF_CALL[process.arch];
      if (number === undefined) return -ENOSYS;
      for (const [offset, target] of pointers) request.writeBigUInt64LE(addressOf(target), offset);
      // The targets go along as arguments that the kernel does not look at, so that they are kept until the call is over.
      const [first, second, third] = pointers.map(([, target]) => target);
      const kept = [first ?? null, second ?? null, third ?? null];
      return Number(now(syscall, number, command, request, request.length, ...kept));
    },
    nameToIndex: (name) => nameToIndex(name) || -ENODEV,
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
 * Runs calls in libuv's pool, at most so many at a time and the others in order. The arguments stay
 * referenced until the call is over, because the kernel writes into them.
 */
class CallPool {
  readonly #lastErrno: () => number;
  readonly #waiting: (() => void)[] = [];
  readonly #most: number;
  #running = 0;

  constructor(lastErrno: () => number, most: number) {
    this.#lastErrno = lastErrno;
    this.#most = most;
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
      if (this.#running < this.#most) start();
      else this.#waiting.push(start);
    });
  }
}
