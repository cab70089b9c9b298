/** Where volantd is, where nobody says: its Unix socket where this user may open it, else loopback. */
import { accessSync, constants, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { DEFAULTS } from "@volant/contract/defaults";

type Environment = Readonly<Record<string, string | undefined>>;

function mayOpen(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return statSync(path).isSocket();
  } catch {
    return false;
  }
}

/** The path of volantd's socket by the settings that both programs read; undefined where it has none. */
export function socketPath(env: Environment): string | undefined {
  const named = env["VOLANT_API_SOCKET"] || undefined;
  if (named === "off") return undefined;
  const runtimeDir = env["VOLANT_RUNTIME_DIR"] || join(env["HOME"] || homedir(), ".volant/run");
  return named ?? join(runtimeDir, DEFAULTS.socketName);
}

/** `--api`, else VOLANT_API_BASE, else the socket or loopback. */
export function apiAddress(given: string | undefined, env: Environment): string {
  const named = given ?? (env["VOLANT_API_BASE"] || undefined);
  if (named !== undefined) return named;
  const path = socketPath(env);
  return path !== undefined && mayOpen(path) ? `unix:${path}` : DEFAULTS.apiBase;
}
