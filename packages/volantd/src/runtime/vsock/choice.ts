/** Whether VMs get a vsock device. Decided once, when volantd starts. */
import { execFile } from "node:child_process";
import { access, constants, stat } from "node:fs/promises";
import { basename, delimiter, dirname, isAbsolute, join } from "node:path";
import { promisify } from "node:util";
import { VolantError } from "@volant/contract";
import { BACKEND_PROGRAM } from "./argv.ts";

const execFileAsync = promisify(execFile);
const VERSION_TIMEOUT_MS = 10_000;
/** What installs it, for whoever lacks it. The version is the one that Volant is tested with. */
export const BACKEND_INSTALL = `cargo install --locked --version 0.3.0 --root /usr/local ${BACKEND_PROGRAM}`;

export interface VsockSetting {
  /** VOLANT_VSOCK: `auto` uses it where the program is there, `on` refuses to start without. */
  readonly wanted: "off" | "auto" | "on";
  /** VOLANT_VHOST_DEVICE_VSOCK: an absolute path; undefined looks on the search path. */
  readonly program?: string | undefined;
}

/** How data (exec, forward, the proxy) reaches the guests that are started from now on. */
export type DataChoice =
  | {
      readonly transport: "vsock";
      readonly wanted: "auto" | "on";
      readonly program: string;
      readonly version: string;
    }
  | { readonly transport: "virtio-serial"; readonly wanted: "off" | "auto"; readonly reason: string };

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

/** What keeps users without privilege from running a program: itself, or a folder on the way to it. Undefined when nothing does. */
export async function closedToOthers(path: string): Promise<string | undefined> {
  for (let place = path; ; place = dirname(place)) {
    if (((await stat(place)).mode & 0o001) === 0) return place;
    if (place === dirname(place)) return undefined;
  }
}

async function findProgram(setting: VsockSetting, searchPath: string): Promise<string | undefined> {
  const candidates =
    setting.program === undefined
      ? searchPath.split(delimiter).flatMap((folder) => (isAbsolute(folder) ? join(folder, BACKEND_PROGRAM) : []))
      : [setting.program];
  for (const candidate of candidates) if (await isProgram(candidate)) return candidate;
  return undefined;
}

/** The program and its version, or why it can't be used. */
async function lookForBackend(
  setting: VsockSetting,
  searchPath: string,
): Promise<{ readonly program: string; readonly version: string } | { readonly reason: string }> {
  const { program: asked } = setting;
  if (asked !== undefined && (!isAbsolute(asked) || basename(asked) !== BACKEND_PROGRAM)) {
    throw new VolantError(
      "invalid",
      `VOLANT_VHOST_DEVICE_VSOCK is ${JSON.stringify(asked)}, and must be the absolute path of a program called ${BACKEND_PROGRAM}`,
    );
  }
  const program = await findProgram(setting, searchPath);
  if (program === undefined) {
    const where = asked === undefined ? "on the search path" : `at ${asked} (VOLANT_VHOST_DEVICE_VSOCK)`;
    return { reason: `there is no ${BACKEND_PROGRAM} ${where}` };
  }
  const closed = await closedToOthers(program);
  if (closed !== undefined) return { reason: `${program} can't be run by a VM's user: ${closed} is closed to others` };
  try {
    const { stdout } = await execFileAsync(program, ["--version"], { timeout: VERSION_TIMEOUT_MS });
    const version = /^vhost-device-vsock (\S+)/.exec(stdout)?.[1];
    return version === undefined ? { reason: `${program} does not say its version` } : { program, version };
  } catch {
    return { reason: `${program} does not run` };
  }
}

/**
 * Chooses.
 *
 * @throws VolantError `not_ready` when it is wanted and can't be had; `invalid` for a setting that names no such program
 */
export async function chooseDataTransport(setting: VsockSetting, searchPath: string): Promise<DataChoice> {
  const { wanted } = setting;
  if (wanted === "off") return { transport: "virtio-serial", wanted, reason: "VOLANT_VSOCK is off" };
  const found = await lookForBackend(setting, searchPath);
  if ("program" in found) return { transport: "vsock", wanted, ...found };
  if (wanted === "auto") return { transport: "virtio-serial", wanted, reason: found.reason };
  throw new VolantError("not_ready", `VOLANT_VSOCK is on, and ${found.reason}`, { hint: BACKEND_INSTALL });
}
