import type { Command } from "commander";
import type { CliIo } from "../../io.ts";
import { registerDisable } from "./disable.ts";
import { registerEnable } from "./enable.ts";
import { registerInstall } from "./install.ts";
import { registerList } from "./list.ts";
import { registerRemove } from "./remove.ts";
import { registerShow } from "./show.ts";

/** `volar plugins …` */
export function registerPlugins(plugins: Command, io: CliIo): void {
  registerList(plugins, io);
  registerShow(plugins, io);
  registerInstall(plugins, io);
  registerEnable(plugins, io);
  registerDisable(plugins, io);
  registerRemove(plugins, io);
}
