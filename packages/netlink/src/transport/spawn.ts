/** posix_spawn(3), and its attributes in memory. Structures are glibc's and musl's own: both keep them well below the room given here. */
import type { ChildStart } from "../child-process.ts";

/** sizeof(posix_spawnattr_t) is 336 in both, sizeof(posix_spawn_file_actions_t) 80. */
const ROOM_BYTES = 1024;
/** spawn.h. */
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const POSIX_SPAWN_SETSID = 0x80;
const SIGSET_BYTES = 128;
/** What can't be handled, and what the C library keeps for itself (signal(7)). */
const NOT_SETTABLE: ReadonlySet<number> = new Set([9, 19, 32, 33, 34]);
const LAST_SIGNAL = 64;

/** The functions of the C library that it takes. Each gives an errno, or 0. */
export interface SpawnCalls {
  initActions(actions: Buffer): number;
  addDuplicate(actions: Buffer, from: number, to: number): number;
  addDirectory(actions: Buffer, path: string): number;
  destroyActions(actions: Buffer): number;
  initAttributes(attributes: Buffer): number;
  setFlags(attributes: Buffer, flags: number): number;
  setMask(attributes: Buffer, signals: Buffer): number;
  setDefaults(attributes: Buffer, signals: Buffer): number;
  destroyAttributes(attributes: Buffer): number;
  /** signal(2): this process ignores it from now on. */
  ignore(signal: number): void;
  /** A copy of a descriptor, at least this number, that no program inherits; -errno. */
  copyAbove(fd: number, least: number): number;
  close(fd: number): number;
  addressOf(buffer: Buffer): bigint;
  /** posix_spawn in libuv's pool: an errno, or 0 with the pid in its cell. `kept` is kept until it is over. */
  run(
    pid: Buffer,
    path: string,
    actions: Buffer,
    attributes: Buffer,
    args: Buffer,
    env: Buffer,
    kept: readonly Buffer[],
  ): Promise<number>;
}

/** A NULL-ended array of C strings, and the bytes that it points into. A hypervisor has some seventy arguments: they are made bytes together. */
function stringTable(calls: SpawnCalls, strings: readonly string[]): { table: Buffer; bytes: Buffer } {
  const bytes = Buffer.from(`${strings.join("\0")}\0`);
  const table = Buffer.alloc((strings.length + 1) * 8);
  // Addresses of user space have 56 bits at most, and those that are in use 48: a number holds them.
  const base = Number(calls.addressOf(bytes));
  let at = 0;
  for (let index = 0; index < strings.length; index += 1) {
    const address = base + at;
    table.writeUInt32LE(address % 0x1_0000_0000, index * 8);
    table.writeUInt32LE(Math.floor(address / 0x1_0000_0000), index * 8 + 4);
    at = bytes.indexOf(0, at) + 1;
  }
  // One would make two of a string, and move all that follow it.
  if (strings.length > 0 && at !== bytes.length) throw new RangeError("a string for a program holds a zero byte");
  return { table, bytes };
}

function signalsBut(ignored: readonly number[]): Buffer {
  const set = Buffer.alloc(SIGSET_BYTES);
  for (let signal = 1; signal <= LAST_SIGNAL; signal += 1) {
    if (NOT_SETTABLE.has(signal) || ignored.includes(signal)) continue;
    const byte = (signal - 1) >> 3;
    set.writeUInt8(set.readUInt8(byte) | (1 << ((signal - 1) & 7)), byte);
  }
  return set;
}

/** The child's pid, or -errno. */
export async function spawnProcess(calls: SpawnCalls, start: ChildStart): Promise<number> {
  const { path, args, env, files, workingDirectory, ownSession, ignoredSignals = [] } = start;
  const actions = Buffer.alloc(ROOM_BYTES);
  const attributes = Buffer.alloc(ROOM_BYTES);
  const pid = Buffer.alloc(4);
  const argumentTable = stringTable(calls, args);
  const environment = stringTable(
    calls,
    Object.entries(env).map(([name, value]) => `${name}=${value}`),
  );
  const copies: number[] = [];
  // What this process ignores its child does, too, unless it is told otherwise (execve(2)).
  for (const signal of ignoredSignals) calls.ignore(signal);
  calls.initActions(actions);
  calls.initAttributes(attributes);
  try {
    for (const [to, from] of files.entries()) {
      // One whose number is a target would be overwritten before its turn, or stay closed on exec where it is its own target.
      const source = from < files.length ? calls.copyAbove(from, files.length) : from;
      if (source < 0) return source;
      if (source !== from) copies.push(source);
      const failed = calls.addDuplicate(actions, source, to);
      if (failed !== 0) return -failed;
    }
    const failed =
      (workingDirectory === undefined ? 0 : calls.addDirectory(actions, workingDirectory)) ||
      calls.setMask(attributes, Buffer.alloc(SIGSET_BYTES)) ||
      calls.setDefaults(attributes, signalsBut(ignoredSignals)) ||
      calls.setFlags(
        attributes,
        POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | (ownSession === true ? POSIX_SPAWN_SETSID : 0),
      );
    if (failed !== 0) return -failed;
    const kept = [argumentTable.bytes, environment.bytes];
    const result = await calls.run(pid, path, actions, attributes, argumentTable.table, environment.table, kept);
    return result === 0 ? pid.readInt32LE(0) : -result;
  } finally {
    for (const fd of copies) calls.close(fd);
    calls.destroyActions(actions);
    calls.destroyAttributes(attributes);
  }
}
