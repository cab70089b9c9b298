import type { Command } from "commander";
import type { CliIo } from "../../../io.ts";
import { registerConfigGet } from "./get.ts";
import { registerConfigHistory } from "./history.ts";
import { registerConfigSet } from "./set.ts";

/** `volar vms config …` */
export function registerConfig(vms: Command, io: CliIo): void {
  const config = vms.command("config").description("show and change a VM's configuration");
  registerConfigGet(config, io);
  registerConfigSet(config, io);
  registerConfigHistory(config, io);
}
