/** Node's own functions that change the world without waiting, each made to tell of it. What is awaited tells by itself. */
import childProcess, { type ChildProcess } from "node:child_process";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import net from "node:net";
import { DatabaseSync, StatementSync } from "node:sqlite";
import { sqlName } from "./point-name.ts";

interface Points {
  effect<T>(what: string, act: () => T): T;
  mark(what: string): void;
  change(): void;
}

type AnyFunction = (this: unknown, ...args: unknown[]) => unknown;

const FILE_FUNCTIONS = [
  "writeFileSync",
  "appendFileSync",
  "linkSync",
  "mkdirSync",
  "renameSync",
  "unlinkSync",
  "rmSync",
];
const PROMISED_FUNCTIONS = [
  "appendFile",
  "chmod",
  "chown",
  "link",
  "mkdir",
  "rename",
  "rm",
  "symlink",
  "truncate",
  "unlink",
  "writeFile",
];
/** Begins a transaction, or a part of one, or undoes either; only its end changes what others see. */
const IN_TRANSACTION = /^(?:BEGIN(?!.*\bCOMMIT\b)|SAVEPOINT|RELEASE|ROLLBACK)\b/;
/** What is temporary is in this process's memory. */
const READS = /^\s*(?:SELECT|PRAGMA|CREATE TEMP)\b/i;

/** nft only tells what is there. */
function isListing(args: unknown): boolean {
  return Array.isArray(args) && args.includes("list");
}

function wrap(owner: object, name: string, around: (call: () => unknown, self: unknown, args: unknown[]) => unknown) {
  const functions = owner as Record<string, AnyFunction>;
  const original = functions[name] as AnyFunction;
  functions[name] = function (this: unknown, ...args: unknown[]) {
    return around(() => original.apply(this, args), this, args);
  };
}

/** Whether a file that is opened so may be made or written to (open(2)). */
function isForWriting(flags: unknown): boolean {
  if (typeof flags === "number")
    return (flags & (fs.constants.O_WRONLY | fs.constants.O_RDWR | fs.constants.O_CREAT)) !== 0;
  return typeof flags === "string" && /[wa+]/.test(flags);
}

/**
 * Call it before anything of volantd's is loaded.
 *
 * @param isOmitted whether a statement, by its {@link sqlName}, is to be left out as if nobody had written it
 */
export function watchEffects(points: Points, isOmitted: (sql: string) => boolean): void {
  const effect: Points["effect"] = (what, act) => points.effect(what, act);
  wrap(childProcess, "spawn", (call, _self, [, args]) => {
    if (isListing(args)) return call();
    const child = effect("", call);
    (child as ChildProcess).once("exit", () => points.change());
    return child;
  });
  wrap(process, "kill", (call, _self, [, signal]) => (signal === 0 ? call() : effect("", call)));
  for (const name of FILE_FUNCTIONS) wrap(fs, name, (call) => effect("", call));
  wrap(net.Server.prototype, "listen", (call) => effect("", call));
  const awaited = (call: () => unknown): unknown => {
    points.change();
    return (call() as Promise<unknown>).finally(() => points.change());
  };
  for (const name of PROMISED_FUNCTIONS) wrap(fs.promises, name, awaited);
  wrap(fs.promises, "open", (call, _self, [, flags]) => (isForWriting(flags) ? awaited(call) : call()));
  syncBuiltinESMExports();
  // What a transaction writes is nowhere before its COMMIT: a death in its midst is one before it.
  let isTransaction = false;
  wrap(DatabaseSync.prototype, "exec", (call, self, [text]) => {
    const sql = sqlName(String(text));
    if (READS.test(sql)) return call();
    const result = IN_TRANSACTION.test(sql) ? call() : effect(`{${sql}}`, call);
    ({ isTransaction } = self as DatabaseSync);
    return result;
  });
  wrap(StatementSync.prototype, "run", (call, self) => {
    const sql = sqlName((self as StatementSync).sourceSQL);
    if (isOmitted(sql)) return { changes: 0, lastInsertRowid: 0 };
    if (!isTransaction) return effect(`{${sql}}`, call);
    points.mark(`{${sql}}`);
    return call();
  });
}
