/**
 * Loaded before a program with `node --import`: the process then believes to be on macOS, finds none of Linux's own folders, and ends at once with
 * an exit code of its own and a line on standard error when it loads netlink or the FFI behind it, however it would deal with a failure.
 */
import fs from "node:fs";
import { registerHooks, syncBuiltinESMExports } from "node:module";
import { LOADED_EXIT_CODE } from "./off-linux-exit.ts";

Object.defineProperty(process, "platform", { value: "darwin" });

registerHooks({
  resolve(specifier, context, nextResolve) {
    const resolved = nextResolve(specifier, context);
    if (/^koffi\b|^@volant\/netlink\b/.test(specifier) || /\/packages\/netlink\/|\/koffi\//.test(resolved.url)) {
      fs.writeSync(2, `off Linux, ${context.parentURL} loads ${specifier}\n`);
      process.exit(LOADED_EXIT_CODE);
    }
    return resolved;
  },
});

const LINUX_ONLY = /^\/(?:proc|sys)(?:\/|$)|^\/dev\/(?:kvm|net)/;

/** Each function whose first argument is a path of Linux's own fails as it does where there is no such path. */
function hide(functions: Record<string, unknown>, fail: (error: Error) => unknown): void {
  for (const [name, original] of Object.entries(functions)) {
    if (typeof original !== "function" || !/^[a-z]/.test(name)) continue;
    functions[name] = function hidden(this: unknown, ...args: unknown[]): unknown {
      const [path] = args;
      if (typeof path !== "string" || !LINUX_ONLY.test(path)) return Reflect.apply(original, this, args);
      return fail(Object.assign(new Error(`ENOENT: no such file or directory, ${name} '${path}'`), { code: "ENOENT" }));
    };
  }
}

hide(fs.promises as unknown as Record<string, unknown>, (error) => Promise.reject(error));
const synchronous = Object.entries(fs).filter(([name]) => name.endsWith("Sync"));
const hidden = Object.fromEntries(synchronous);
hide(hidden, (error) => {
  throw error;
});
Object.assign(fs, hidden);
syncBuiltinESMExports();
