import { VOLANT_VERSION } from "@volant/contract/defaults";
import { VolantError } from "@volant/contract/errors";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { formatFields } from "../../table.ts";

interface Versions {
  readonly client: string;
  /** Null where no volantd answers: the client's version is still worth knowing. */
  readonly server: string | null;
  readonly api: string;
  /** Why there is no server version. */
  readonly error?: string;
}

function versionFields({ client, server, api, error }: Versions): string {
  return formatFields([
    ["volar", client],
    ["volantd", server === null ? `unknown: ${error ?? ""}` : `${server} at ${api}`],
  ]);
}

/** Versions of this program and of the volantd that it talks to. */
export async function showVersion(context: CommandContext): Promise<Result> {
  const { api } = context;
  const client = await context.client();
  let versions: Versions;
  try {
    versions = { client: VOLANT_VERSION, server: (await client.system.info()).version, api };
  } catch (error) {
    if (!(error instanceof VolantError)) throw error;
    versions = { client: VOLANT_VERSION, server: null, api, error: error.message };
  }
  return result(versions, versionFields, [], ({ client: own }) => [own]);
}

/** `volar version` */
export function registerVersion(command: Command, io: CliIo): void {
  command.action(action(io, showVersion));
}
