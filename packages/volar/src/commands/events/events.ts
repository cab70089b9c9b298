import { once } from "node:events";
import type { NumberedVmEvent, VmEventGap, VmEventType } from "@volant/contract";
import type { VolantClient } from "@volant/sdk";
import { InvalidArgumentError, Option, type Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { renderItem } from "../../output.ts";
import { printable } from "../../table.ts";
import { pastTime, repeated, wholeNumber } from "../../values.ts";

interface EventFlags {
  readonly vm?: readonly string[];
  readonly type?: readonly VmEventType[];
  readonly since?: Date;
  readonly after?: number;
  readonly limit?: number;
  readonly follow?: boolean;
}

/** Without a beginning, so many of what is kept are shown. */
const DEFAULT_LIMIT = 100;
const PAGE = 1000;

function eventLine(event: NumberedVmEvent): string {
  const words = [event.status, event.reason, event.ip_address, event.message, event.line];
  const detail = words.filter((word) => word !== undefined && word !== "").join(" ");
  return printable(`${event.timestamp} ${event.type} ${event.name} ${detail}`.trimEnd());
}

/** `VM_CRASHED`, also as `vm_crashed` or `crashed`. Which ones there are is volantd's to say. */
function eventType(text: string, before: readonly VmEventType[] | undefined): VmEventType[] {
  const word = text.toUpperCase().replaceAll("-", "_");
  if (!/^[A-Z_]{1,64}$/.test(word)) throw new InvalidArgumentError("It must be a type such as VM_CRASHED, or crashed.");
  return [...(before ?? []), (word.startsWith("VM_") ? word : `VM_${word}`) as VmEventType];
}

/** What is kept, the oldest first. */
async function past(client: VolantClient, { vm, type, since, after, limit }: EventFlags): Promise<NumberedVmEvent[]> {
  const all = since !== undefined || after !== undefined;
  let wanted = limit ?? (all ? Number.POSITIVE_INFINITY : DEFAULT_LIMIT);
  const found: NumberedVmEvent[] = [];
  while (wanted > 0) {
    const before = found.at(-1)?.id;
    const count = Math.min(wanted, PAGE);
    const page = await client.pastEvents({
      limit: count,
      ...(vm === undefined ? {} : { name: [...vm] }),
      ...(type === undefined ? {} : { type: [...type] }),
      ...(since === undefined ? {} : { since: since.toISOString() }),
      ...(after === undefined ? {} : { after }),
      ...(before === undefined ? {} : { before }),
    });
    found.push(...page);
    if (page.length < count) break;
    wanted -= count;
  }
  return found.toReversed();
}

/** Shows what happened, and follows what happens to VMs until interrupted: a line each, with `--output json` a JSON document a line. */
export async function showEvents(context: CommandContext, flags: EventFlags): Promise<undefined> {
  const { io, output, quiet } = context;
  const { vm: names, type, since, after: afterId, follow = true } = flags;
  const client = await context.client();
  const onGap = ({ message }: VmEventGap) => void io.stderr.write(`volar: ${printable(message)}\n`);
  for await (const event of follow
    ? client.events({ name: names, type, since, afterId, onGap })
    : await past(client, flags)) {
    const { name } = event;
    const text = await renderItem(quiet ? name : event, output, () => (quiet ? printable(name) : eventLine(event)));
    if (!io.stdout.write(text)) await once(io.stdout, "drain");
  }
}

/** `volar events` */
export function registerEvents(command: Command, io: CliIo): void {
  command
    .option("--vm <vm>", "only of this VM; may be repeated", repeated)
    .option("--type <type>", "only of this type, such as VM_CRASHED or crashed; may be repeated", eventType)
    .option("--since <time>", "what is kept of this time and later first: 1h ago, or 2026-01-31T08:00:00Z", pastTime)
    .addOption(
      new Option("--after <id>", "what is kept after this event first; 0 for all of it")
        .argParser(wholeNumber(0))
        .conflicts("since"),
    )
    .option("-f, --follow", "go on with new events until interrupted; so it is unless told otherwise")
    .option("--no-follow", "show what is kept, and end")
    .addOption(
      new Option(
        "--limit <count>",
        `only so many of the last, without following; ${DEFAULT_LIMIT} where neither a time nor an id is given`,
      )
        .argParser(wholeNumber(1))
        .implies({ follow: false }),
    )
    .action(action(io, showEvents));
}
