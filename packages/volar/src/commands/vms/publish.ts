import { Argument, type Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { endpointText, publishedTable } from "../../views/vms.ts";
import { gatherPorts, type ExposeEntry } from "./port-spec.ts";

/** Publishes more ports of a VM, at once. */
export async function publishPorts(
  context: CommandContext,
  name: string,
  ports: readonly ExposeEntry[],
): Promise<Result> {
  const { vms } = await context.client();
  const { config } = await vms.config(name);
  await vms.setConfig(name, { expose: [...(config.expose ?? []), ...ports] });
  const { network } = await vms.get(name);
  return result(network.published ?? [], publishedTable, [], (shown) => shown.map(endpointText));
}

export function registerPublish(vms: Command, io: CliIo): void {
  vms
    .command("publish")
    .description("reach ports of a guest through ports of volantd's host, for as long as the VM exists")
    .argument("<vm>")
    .addArgument(
      new Argument(
        "<ports...>",
        "[[address:][host port]:]<guest port>, such as 8080:80 (address: 127.0.0.1)",
      ).argParser(gatherPorts),
    )
    .action(action(io, publishPorts));
}
