import type { VmListQuery } from "@volant/contract";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { repeated, wholeNumber } from "../../values.ts";
import { vmTable } from "../../views/vms.ts";

interface ListOptions {
  readonly status?: readonly string[];
  readonly runtime?: string;
  readonly plugin?: string;
  readonly query?: string;
  readonly limit?: number;
  readonly offset?: number;
  readonly sort?: string;
  readonly order?: string;
}

/** Lists VMs; the server says what is wrong with a filter. */
export async function listVms(context: CommandContext, options: ListOptions): Promise<Result> {
  const { status, query: q, runtime, plugin, limit, offset, sort, order } = options;
  const client = await context.client();
  const query = {
    status: status?.flatMap((words) => words.split(",")),
    q,
    runtime,
    plugin,
    limit,
    offset,
    sort,
    order,
  };
  const { vms, total } = await client.vms.list(query as VmListQuery);
  if (vms.length < total) context.progress.finish(`${vms.length} of ${total} VMs`);
  return result(vms, vmTable);
}

export function registerList(vms: Command, io: CliIo): void {
  vms
    .command("list")
    .alias("ls")
    .description("list VMs")
    .option("--status <status>", "only with this status; may be repeated", repeated)
    .option("--runtime <name>", "only of this runtime")
    .option("--plugin <plugin>", "only of this plugin")
    .option("--query <text>", "only with this text in the name")
    .option("--limit <count>", "at most so many", wholeNumber(1))
    .option("--offset <count>", "leave out so many first", wholeNumber(0))
    .option("--sort <field>", "name, status, runtime, created_at or updated_at")
    .option("--order <order>", "asc or desc")
    .action(action(io, listVms));
}
