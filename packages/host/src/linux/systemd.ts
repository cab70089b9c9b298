/** The service, through systemctl. */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { VolantError } from "@volant/contract";
import type { ObservedService } from "../setup/observed.ts";
import { readTextFile } from "./files.ts";
import { complaint, findProgram, runProgram } from "./programs.ts";

/** Exists when systemd is the init (sd_booted(3)). */
const SYSTEMD_MARK = "/run/systemd/system";

/** Whether systemd is this machine's init. */
export async function isBootedWithSystemd(): Promise<boolean> {
  try {
    return (await stat(SYSTEMD_MARK)).isDirectory();
  } catch {
    return false;
  }
}

/** Looks at the unit's file and whether it is enabled. */
export async function observeService(serviceFile: string): Promise<ObservedService> {
  if (serviceFile === "") return { systemd: false, unitText: undefined, enabled: false };
  const systemctl = (await isBootedWithSystemd()) ? await findProgram("systemctl") : undefined;
  let unitText: string | undefined;
  try {
    unitText = await readTextFile(serviceFile);
  } catch {
    // Not readable for us: planned as if absent.
  }
  if (systemctl === undefined) return { systemd: false, unitText, enabled: false };
  const { status } = await runProgram(systemctl, ["is-enabled", "--quiet", basename(serviceFile)]);
  return { systemd: true, unitText, enabled: status === 0 };
}

/** Runs systemctl, which must be there. */
export async function systemctl(...args: string[]): Promise<void> {
  const program = await findProgram("systemctl");
  if (program === undefined) throw new VolantError("not_ready", "there is no systemctl on this host");
  const result = await runProgram(program, args);
  if (result.status === 0) return;
  throw new VolantError("not_ready", `systemctl ${args.join(" ")} failed: ${complaint(result)}`);
}
