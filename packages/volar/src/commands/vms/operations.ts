import type { Operation } from "@volant/sdk";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { formatTable } from "../../table.ts";

function operationTable(operations: readonly Operation[]): string {
  return formatTable([
    ["OPERATION", "METHOD", "PATH", "SUMMARY"],
    ...operations.map(({ id, method, path, summary }) => [id, method, path, summary]),
  ]);
}

/** Lists what a VM's workload can be asked. */
export async function listVmOperations(context: CommandContext, name: string): Promise<Result> {
  const client = await context.client();
  return result(await client.workloads.operations(name), operationTable);
}

export function registerOperations(vms: Command, io: CliIo): void {
  vms
    .command("operations")
    .description("list what a VM's workload can be asked, from its OpenAPI document")
    .argument("<vm>")
    .action(action(io, listVmOperations));
}
