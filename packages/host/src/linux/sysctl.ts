/** Kernel settings as files below /proc/sys, which is this process's own network namespace's. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { FORWARDING } from "../setup/operation.ts";
import { listFolder } from "./files.ts";

const ROOT = "/proc/sys";
const CONF = "net/ipv4/conf";

/** One setting's value, or undefined when it can't be read: not all can, and a link may go at any time. */
export async function readSysctl(name: string): Promise<string | undefined> {
  try {
    return (await readFile(join(ROOT, name), "utf8")).trimEnd();
  } catch {
    return undefined;
  }
}

/** Gives a setting its value. */
export async function writeSysctl(name: string, value: string): Promise<void> {
  await writeFile(join(ROOT, name), `${value}\n`);
}

/** The switch for forwarding and every per-link IPv4 setting, by path below /proc/sys. */
export async function readForwardingSysctls(): Promise<Record<string, string>> {
  const values: Record<string, string> = {};
  const keep = async (name: string): Promise<void> => {
    const value = await readSysctl(name);
    if (value !== undefined) values[name] = value;
  };
  await keep(FORWARDING);
  for (const link of await listFolder(join(ROOT, CONF))) {
    for (const setting of await listFolder(join(ROOT, CONF, link))) await keep(`${CONF}/${link}/${setting}`);
  }
  return values;
}

/**
 * Turns forwarding off, then gives each setting its value. Turning it off comes first: it resets some of the others
 * (`ip_forward` in Documentation/networking/ip-sysctl.rst).
 */
export async function restoreForwarding(values: Readonly<Record<string, string>>): Promise<void> {
  await writeSysctl(FORWARDING, "0");
  for (const [name, value] of Object.entries(values)) {
    const found = await readSysctl(name);
    if (found !== undefined && found !== value) await writeSysctl(name, value);
  }
}
