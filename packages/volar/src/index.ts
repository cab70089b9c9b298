export { run } from "./run.ts";
export type { CliIo } from "./io.ts";
