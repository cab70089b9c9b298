/** Running a program in a guest with volar's own standard streams. */
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { VolantError } from "@volant/contract/errors";
import type { ExecStart, GuestProcess } from "@volant/sdk/node";
import type { CommandContext } from "../../context.ts";
import { ProgramExit, renderFailure } from "../../failure.ts";
import type { CliIo } from "../../io.ts";

/** What shells answer for a program that is not there, one that can't be run, and one that a signal ended (POSIX, Exit Status for Commands). */
const EXIT_MISSING = 127;
const EXIT_NOT_EXECUTABLE = 126;
const EXIT_SIGNAL = 128;

async function copy(from: Readable, to: Writable): Promise<void> {
  for await (const part of from as AsyncIterable<Buffer>) if (!to.write(part)) await once(to, "drain");
}

/** Sends standard input on, to its end. Returns what takes it off again. */
function feed(process: GuestProcess, { stdin }: CliIo): () => void {
  stdin.pipe(process.stdin);
  return () => {
    stdin.unpipe(process.stdin);
    // A standard input that goes on would keep volar from ending.
    stdin.destroy();
  };
}

/**
 * Runs a program and ends as it does.
 *
 * @param begun gets the process once it is on its way, and gives what undoes that
 * @throws ProgramExit always, unless the connection fails
 */
export async function runInGuest(
  context: CommandContext,
  vm: string,
  start: ExecStart,
  begun: (process: GuestProcess) => () => void = () => () => {},
): Promise<never> {
  const { io } = context;
  const process = await (await context.streams()).exec(vm, start);
  const stopFeeding = feed(process, io);
  const undo = begun(process);
  try {
    await Promise.all([copy(process.stdout, io.stdout), copy(process.stderr, io.stderr)]);
    const exit = await process.exit;
    throw new ProgramExit("code" in exit ? exit.code : EXIT_SIGNAL + exit.signal);
  } catch (error) {
    if (!(error instanceof VolantError) || (error.code !== "not_found" && error.code !== "forbidden")) throw error;
    io.stderr.write(await renderFailure(error, context.output));
    throw new ProgramExit(error.code === "not_found" ? EXIT_MISSING : EXIT_NOT_EXECUTABLE);
  } finally {
    undo();
    stopFeeding();
    process.close();
  }
}
