import { processIo } from "./io.ts";
import { run } from "./run.ts";

// Who reads our output may stop early, as head(1) does: that is no failure to tell about.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

process.exitCode = await run(process.argv.slice(2), processIo());
