/** From an error of SQLite to what is wrong with the database's disk or file, in one sentence. */
import { VolantError } from "@volant/contract";
import { messageOf } from "../message-of.ts";

/** Primary result codes (sqlite.org/rescode.html); an extended one has its primary one in its lowest byte. */
export const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;
const SQLITE_READONLY = 8;
const SQLITE_IOERR = 10;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_CANTOPEN = 14;
const SQLITE_NOTADB = 26;

/** The primary result code of an error; undefined where it is none of SQLite's. */
export function sqliteCode(error: unknown): number | undefined {
  const code = (error as { errcode?: unknown } | undefined)?.errcode;
  return typeof code === "number" ? code & 0xff : undefined;
}

interface Fault {
  readonly what: string;
  readonly hint: string;
}

function faultOf(code: number | undefined, path: string, message: string): Fault | undefined {
  switch (code) {
    case SQLITE_FULL:
      return {
        what: `the database ${path} can't be written: its disk is full`,
        hint: "make room on that disk and ask again; nothing was changed, and running VMs go on",
      };
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return {
        what: `the database ${path} can't be written: another program holds it locked`,
        hint: "end that program's transaction, such as one of a sqlite3 shell, and ask again",
      };
    case SQLITE_READONLY:
      return {
        what: `the database ${path} can't be written: it is read-only`,
        hint: "make its file, folder and file system writable for volantd and ask again",
      };
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      return {
        what: `the database ${path} can't be read or written: ${message}`,
        hint: "look into the kernel's log for errors of that disk, and at the room and the rights on it; running VMs go on",
      };
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return {
        what: `the database ${path} is damaged: ${message}`,
        hint: "stop volantd and put a backup in its place: volar restore <file>",
      };
    default:
      return undefined;
  }
}

/** What is wrong with the database at `path`, as `not_ready`; undefined where the error is none of those that a disk or another program causes. */
export function databaseFault(error: unknown, path: string): VolantError | undefined {
  const message = messageOf(error);
  const fault = faultOf(sqliteCode(error), path, message);
  if (fault === undefined) return undefined;
  return new VolantError("not_ready", fault.what, { hint: fault.hint, cause: error });
}

/**
 * The same object, whose methods throw what `translate` makes of what they threw. Every method is covered, also one that is added later: none can
 * pass a disk's fault on as if it were a bug.
 */
export function translated<T extends object>(target: T, translate: (error: unknown) => unknown): T {
  const wrappers = new Map<PropertyKey, unknown>();
  return new Proxy(target, {
    get(_, key) {
      const known = wrappers.get(key);
      if (known !== undefined) return known;
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      const wrapper = (...given: unknown[]): unknown => {
        try {
          return Reflect.apply(value, target, given);
        } catch (error) {
          throw translate(error);
        }
      };
      wrappers.set(key, wrapper);
      return wrapper;
    },
  });
}
