import type { VolantClient } from "@volant/sdk";
import type { GuestStreams } from "@volant/sdk/node";
import type { Command } from "commander";
import { apiAddress } from "./api-address.ts";
import { AnsweredWithCode, EXIT_DONE, SeveralFailures } from "./failure.ts";
import { commandPath, givenNames } from "./given-names.ts";
import type { CliIo } from "./io.ts";
import type { Circumstances } from "./next-step.ts";
import { render, type OutputFormat, type Result } from "./output.ts";
import { createProgress, type Progress } from "./progress.ts";

/** What a command's handler gets to work with. */
export interface CommandContext {
  readonly io: CliIo;
  readonly progress: Progress;
  readonly output: OutputFormat;
  /** Only names are wanted. */
  readonly quiet: boolean;
  /** What is done may be told to people, line by line, while it is done. */
  readonly tells: boolean;
  /** Where volantd is: a URL, or `unix:` and the path of its socket. */
  readonly api: string;
  /** Made at first use: a command that needs no volantd loads no client. */
  client(): Promise<VolantClient>;
  /** The same for another address or key, where they are given. */
  clientAt(api: string | undefined, apiKey: string | undefined): Promise<VolantClient>;
  /** Streams into guests, loaded at first use. */
  streams(): Promise<GuestStreams>;
}

interface GlobalOptions {
  readonly api?: string;
  readonly apiKey?: string;
  readonly output?: OutputFormat;
  readonly quiet?: boolean;
  /** Some commands have it, as another word for `--output json`. */
  readonly json?: boolean;
}

async function openClient(baseUrl: string, apiKey: string | undefined): Promise<VolantClient> {
  const { transportOptions } = await import("@volant/sdk/transport");
  return new (await import("@volant/sdk")).VolantClient(transportOptions({ baseUrl, apiKey }));
}

function createContext(io: CliIo, options: GlobalOptions): CommandContext {
  const api = apiAddress(options.api, io.env);
  const apiKey = options.apiKey ?? (io.env["VOLANT_API_KEY"] || undefined);
  const output = options.json === true ? "json" : (options.output ?? "table");
  const quiet = options.quiet === true;
  return {
    io,
    progress: createProgress(quiet ? { ...io, stderrIsTerminal: false } : io),
    output,
    quiet,
    tells: output === "table" && !quiet,
    api,
    client: () => openClient(api, apiKey),
    clientAt: (otherApi, otherKey) => openClient(apiAddress(otherApi ?? api, io.env), otherKey ?? apiKey),
    streams: async () => new (await import("@volant/sdk/node")).GuestStreams({ baseUrl: api, apiKey }),
  };
}

/** volantd has just answered, so that names come at once; if not, the error is worth more without a suggestion. */
const NAMES_WITHIN_MS = 5000;

function circumstances(command: Command, { client }: CommandContext): Circumstances {
  return {
    command: commandPath(command),
    given: givenNames(command),
    names: async (nouns) => (await import("./live-names.ts")).liveNames(client, nouns, NAMES_WITHIN_MS),
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
      io.stdout.write(await render(done, context.output, context.quiet));
      if (done.failures.length > 0) throw new SeveralFailures(done.failures);
      if (done.exitCode !== undefined && done.exitCode !== EXIT_DONE) throw new AnsweredWithCode(done.exitCode);
    } catch (error) {
      const { withNextStep } = await import("./next-step.ts");
      throw await withNextStep(error, circumstances(command, context));
    } finally {
      context.progress.clear();
    }
  };
}
