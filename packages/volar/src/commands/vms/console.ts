import { once } from "node:events";
import type { Duplex } from "node:stream";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { beforeEscape, DEFAULT_ESCAPE, escapeKey, keyName, type EscapeKey } from "./escape-key.ts";

interface ConsoleFlags {
  readonly escape?: EscapeKey;
}

interface Terminal {
  setRawMode(raw: boolean): unknown;
}

async function type(
  stdin: CliIo["stdin"],
  serial: Duplex,
  key: EscapeKey,
  signal: AbortSignal,
): Promise<"left" | "over"> {
  for await (const part of stdin as AsyncIterable<Buffer | string>) {
    const { typed, isLeft } = beforeEscape(Buffer.from(part as Buffer), key);
    if (typed.length > 0 && !serial.write(typed)) await once(serial, "drain", { signal });
    if (isLeft) return "left";
  }
  return "over";
}

async function show(serial: Duplex, { stdout }: CliIo): Promise<void> {
  for await (const part of serial as AsyncIterable<Buffer>) if (!stdout.write(part)) await once(stdout, "drain");
}

/**
 * Joins standard input and output to a VM's serial console. On a terminal every key goes to the guest, but for the one that leaves. Without one, the end of
 * standard input leaves what is printed to go on.
 */
export async function openVmConsole(context: CommandContext, name: string, flags: ConsoleFlags): Promise<undefined> {
  const { io } = context;
  const { stdin, stderr } = io;
  const terminal = "setRawMode" in stdin ? (stdin as unknown as Terminal) : undefined;
  const key = terminal === undefined ? undefined : "escape" in flags ? flags.escape : DEFAULT_ESCAPE;
  const leaving = new AbortController();
  const serial = await (await context.streams()).console(name);
  if (terminal !== undefined) {
    const leave = key === undefined ? "no key leaves it" : `${keyName(key)} leaves it`;
    stderr.write(`volar: the console of VM "${name}": ${leave}\n`);
    terminal.setRawMode(true);
  }
  try {
    const shown = show(serial, io).then(() => "ended" as const);
    const typed = type(stdin, serial, key, leaving.signal).then((how) => (how === "left" ? how : shown));
    const how = await Promise.race([shown, typed]);
    if (terminal !== undefined) stderr.write(how === "left" ? "\r\n" : "\r\nvolar: the VM ended\r\n");
  } finally {
    leaving.abort();
    terminal?.setRawMode(false);
    serial.destroy();
    // A standard input that goes on would keep volar from ending.
    stdin.destroy();
  }
}

export function registerConsole(vms: Command, io: CliIo): void {
  vms
    .command("console")
    .description("read and type on a VM's serial console; Ctrl-] leaves it")
    .argument("<vm>")
    .option("--escape <key>", 'the key that leaves it, such as "^a", or none', escapeKey)
    .action(action(io, openVmConsole));
}
