import { VolantError } from "@volant/contract/errors";
import { Argument, type Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { endpointText, publishedTable } from "../../views/vms.ts";
import { gatherHostPorts, remainingPorts, type HostPort } from "./published-choice.ts";

/** Ends the publishing of ports of a VM, and the connections that came by them. */
export async function unpublishPorts(
  context: CommandContext,
  name: string,
  ports: readonly HostPort[],
): Promise<Result> {
  const { vms } = await context.client();
  const [{ config }, vm] = await Promise.all([vms.config(name), vms.get(name)]);
  const { rest, missing } = remainingPorts(config.expose ?? [], vm.network.published ?? [], ports);
  if (missing !== undefined) {
    throw new VolantError("not_found", `VM "${name}" has published no port ${missing.text}`, {
      hint: `volar vms get ${name}`,
    });
  }
  await vms.setConfig(name, { expose: rest });
  const { network } = await vms.get(name);
  return result(network.published ?? [], publishedTable, [], (shown) => shown.map(endpointText));
}

export function registerUnpublish(vms: Command, io: CliIo): void {
  vms
    .command("unpublish")
    .description("end the publishing of ports, and the connections that came by them")
    .argument("<vm>")
    .addArgument(
      new Argument("<ports...>", "port of the host, such as 8080, or with its address: 127.0.0.1:8080").argParser(
        gatherHostPorts,
      ),
    )
    .action(action(io, unpublishPorts));
}
