import type { Command } from "commander";
import type { CliIo } from "../../io.ts";
import { registerCreate } from "./create.ts";
import { registerDelete } from "./delete.ts";
import { registerExec } from "./exec.ts";
import { registerForward } from "./forward.ts";
import { registerGet } from "./get.ts";
import { registerList } from "./list.ts";
import { registerRestart } from "./restart.ts";
import { registerShell } from "./shell.ts";
import { registerStart } from "./start.ts";
import { registerStop } from "./stop.ts";
import { registerWait } from "./wait.ts";

/** `volar vms …` */
export function registerVms(vms: Command, io: CliIo): void {
  registerList(vms, io);
  registerGet(vms, io);
  registerCreate(vms, io);
  registerDelete(vms, io);
  registerStart(vms, io);
  registerStop(vms, io);
  registerRestart(vms, io);
  registerWait(vms, io);
  registerExec(vms, io);
  registerShell(vms, io);
  registerForward(vms, io);
}
