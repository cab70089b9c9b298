import type { Command } from "commander";
import type { CliIo } from "../../io.ts";
import { registerCreate } from "./create.ts";
import { registerList } from "./list.ts";
import { registerRevoke } from "./revoke.ts";

/** `volar keys …` */
export function registerKeys(keys: Command, io: CliIo): void {
  registerList(keys, io);
  registerCreate(keys, io);
  registerRevoke(keys, io);
}
