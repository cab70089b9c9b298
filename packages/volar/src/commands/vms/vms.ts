import type { Command } from "commander";
import type { CliIo } from "../../io.ts";

type Register = (vms: Command, io: CliIo) => void;

/** Loads of each verb, in the order of help. A file takes a millisecond to load: there are so many that those of other verbs would be noticed. */
const VERBS: Readonly<Record<string, () => Promise<Register>>> = {
  list: async () => (await import("./list.ts")).registerList,
  get: async () => (await import("./get.ts")).registerGet,
  create: async () => (await import("./create.ts")).registerCreate,
  delete: async () => (await import("./delete.ts")).registerDelete,
  start: async () => (await import("./start.ts")).registerStart,
  stop: async () => (await import("./stop.ts")).registerStop,
  restart: async () => (await import("./restart.ts")).registerRestart,
  config: async () => (await import("./config/config.ts")).registerConfig,
  scale: async () => (await import("./scale.ts")).registerScale,
  wait: async () => (await import("./wait.ts")).registerWait,
  exec: async () => (await import("./exec.ts")).registerExec,
  shell: async () => (await import("./shell.ts")).registerShell,
  console: async () => (await import("./console.ts")).registerConsole,
  forward: async () => (await import("./forward.ts")).registerForward,
  cp: async () => (await import("./cp.ts")).registerCp,
  logs: async () => (await import("./logs.ts")).registerLogs,
  operations: async () => (await import("./operations.ts")).registerOperations,
  call: async () => (await import("./call.ts")).registerCall,
  publish: async () => (await import("./publish.ts")).registerPublish,
  unpublish: async () => (await import("./unpublish.ts")).registerUnpublish,
};

/**
 * `volar vms …`
 *
 * @param verb the only one that is needed; any other word, or none, means all of them
 */
export async function registerVms(vms: Command, io: CliIo, verb: string | undefined): Promise<void> {
  const only = verb === undefined || !Object.hasOwn(VERBS, verb) ? undefined : VERBS[verb];
  const loads = only === undefined ? Object.values(VERBS) : [only];
  for (const register of await Promise.all(loads.map((load) => load()))) register(vms, io);
}
