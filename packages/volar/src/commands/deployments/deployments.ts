import type { Command } from "commander";
import type { CliIo } from "../../io.ts";
import { registerCreate } from "./create.ts";
import { registerDelete } from "./delete.ts";
import { registerGet } from "./get.ts";
import { registerHistory } from "./history.ts";
import { registerList } from "./list.ts";
import { registerPause, registerResume } from "./pause.ts";
import { registerRollback } from "./rollback.ts";
import { registerScale } from "./scale.ts";
import { registerUpdate } from "./update.ts";
import { registerWait } from "./wait.ts";

/** `volar deployments …` */
export function registerDeployments(deployments: Command, io: CliIo): void {
  registerList(deployments, io);
  registerGet(deployments, io);
  registerCreate(deployments, io);
  registerScale(deployments, io);
  registerUpdate(deployments, io);
  registerPause(deployments, io);
  registerResume(deployments, io);
  registerRollback(deployments, io);
  registerHistory(deployments, io);
  registerWait(deployments, io);
  registerDelete(deployments, io);
}
