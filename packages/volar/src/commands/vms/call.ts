import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { buffer } from "node:stream/consumers";
import { VolantError } from "@volant/contract/errors";
import type { Answer } from "@volant/sdk";
import { InvalidArgumentError, Option, type Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import { AnsweredWithCode, EXIT_FAILED } from "../../failure.ts";
import { fileFailure } from "../../file-failure.ts";
import type { CliIo } from "../../io.ts";
import { printable } from "../../table.ts";
import { durationMs } from "../../values.ts";

type Pair = readonly [name: string, value: string];

interface CallFlags {
  readonly query?: readonly Pair[];
  readonly body?: string;
  readonly bodyFile?: string;
  readonly contentType?: string;
  readonly timeout?: number;
}

const DEFAULT_TIMEOUT_MS = 60_000;

/** Gathers `NAME=VALUE`, a name as often as it is given. */
function queryPair(text: string, before: readonly Pair[] = []): Pair[] {
  const equals = text.indexOf("=");
  if (equals < 1) throw new InvalidArgumentError("It must be NAME=VALUE.");
  return [...before, [text.slice(0, equals), text.slice(equals + 1)]];
}

async function readBody(
  { body, bodyFile }: CallFlags,
  io: CliIo,
): Promise<Uint8Array<ArrayBuffer> | string | undefined> {
  if (bodyFile === undefined) return body;
  const bytes =
    bodyFile === "-"
      ? await buffer(io.stdin)
      : await readFile(bodyFile).catch((error: unknown) => {
          throw fileFailure(bodyFile, error);
        });
  return new Uint8Array(bytes);
}

async function print(response: Answer, io: CliIo): Promise<void> {
  if (response.body === null) return;
  for await (const part of response.body) if (!io.stdout.write(part)) await once(io.stdout, "drain");
}

/** Calls an operation of a VM's workload, and prints its answer as it comes. */
export async function callVmOperation(
  context: CommandContext,
  name: string,
  operation: string,
  flags: CallFlags,
): Promise<undefined> {
  const { timeout: timeoutMs = DEFAULT_TIMEOUT_MS, query = [], contentType } = flags;
  const body = await readBody(flags, context.io);
  const client = await context.client();
  const signal = AbortSignal.timeout(timeoutMs);
  const input = { query, body, signal, ...(contentType === undefined ? {} : { contentType }) };
  try {
    const response = await client.workloads.call(name, operation, input);
    await print(response, context.io);
    if (response.status < 400) return;
    const status = `${response.status} ${printable(response.statusText)}`.trimEnd();
    context.io.stderr.write(`volar: the workload of VM "${name}" answered ${status}\n`);
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new VolantError("timeout", `the workload of VM "${name}" did not answer within ${timeoutMs / 1000} s`, {
      hint: "--timeout gives it more",
    });
  }
  throw new AnsweredWithCode(EXIT_FAILED);
}

export function registerCall(vms: Command, io: CliIo): void {
  vms
    .command("call")
    .description("call an operation of a VM's workload, and print its answer; fails where its status is 400 or above")
    .argument("<vm>")
    .argument("<operation>", 'its id, or method and path, such as "GET /things/{id}"')
    .option("--query <name=value>", "value of the query, or of a parameter in the path; may be repeated", queryPair)
    .addOption(
      new Option("--body <text>", "what is sent, JSON unless --content-type says otherwise").conflicts("bodyFile"),
    )
    .option("--body-file <file>", "file with what is sent, or - for standard input")
    .option("--content-type <type>", "type of what is sent (default: application/json)")
    .option("--timeout <time>", "give up after this, such as 30s or 5m (default: 1m)", durationMs)
    .action(action(io, callVmOperation));
}
