import { DEFAULTS } from "@volant/contract/defaults";
import type { VolantClient } from "@volant/sdk";
import type { GuestStreams } from "@volant/sdk/node";
import type { Command } from "commander";
import { AnsweredWithCode, EXIT_DONE, SeveralFailures } from "./failure.ts";
import type { CliIo } from "./io.ts";
import { render, type OutputFormat, type Result } from "./output.ts";
import { createProgress, type Progress } from "./progress.ts";

/** What a command's handler gets to work with. */
export interface CommandContext {
  readonly io: CliIo;
  readonly progress: Progress;
  readonly output: OutputFormat;
  /** Base URL of volantd. */
  readonly api: string;
  /** Made at first use: a command that needs no volantd loads no client. */
  client(): Promise<VolantClient>;
  /** Streams into guests, loaded at first use. */
  streams(): Promise<GuestStreams>;
}

interface GlobalOptions {
  readonly api?: string;
  readonly apiKey?: string;
  readonly output?: OutputFormat;
  /** Some commands have it, as another word for `--output json`. */
  readonly json?: boolean;
}

function createContext(io: CliIo, options: GlobalOptions): CommandContext {
  const api = options.api ?? (io.env["VOLANT_API_BASE"] || DEFAULTS.apiBase);
  const apiKey = options.apiKey ?? (io.env["VOLANT_API_KEY"] || undefined);
  return {
    io,
    progress: createProgress(io),
    output: options.json === true ? "json" : (options.output ?? "table"),
    api,
    client: async () => new (await import("@volant/sdk")).VolantClient({ baseUrl: api, apiKey }),
    streams: async () => new (await import("@volant/sdk/node")).GuestStreams({ baseUrl: api, apiKey }),
  };
}

/**
 * A commander action: runs a handler with the context and prints what it gives, if it gives anything.
 *
 * @param handle gets the context, then the command's arguments and last its options, as commander gives them
 */
export function action<Args extends readonly unknown[]>(
  io: CliIo,
  handle: (context: CommandContext, ...args: Args) => Promise<Result | undefined>,
): (...given: unknown[]) => Promise<void> {
  return async (...given) => {
    const command = given.pop() as Command;
    const context = createContext(io, command.optsWithGlobals());
    try {
      const done = await handle(context, ...(given as unknown as Args));
      context.progress.clear();
      if (done === undefined) return;
      io.stdout.write(await render(done, context.output));
      if (done.failures.length > 0) throw new SeveralFailures(done.failures);
      if (done.exitCode !== undefined && done.exitCode !== EXIT_DONE) throw new AnsweredWithCode(done.exitCode);
    } finally {
      context.progress.clear();
    }
  };
}
