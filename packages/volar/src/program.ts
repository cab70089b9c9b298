/**
 * The command tree. Only the part that the command line asks for is loaded, the rest is named: what a command needs should not slow down the
 * others.
 */
import { VOLANT_VERSION } from "@volant/contract/defaults";
import { Command, Option } from "commander";
import type { CliIo } from "./io.ts";
import { OUTPUT_FORMATS } from "./output.ts";
import { usageText } from "./usage-hint.ts";

interface Part {
  readonly name: string;
  readonly description: string;
  /** Help does not name it. */
  readonly hidden?: true;
  /** Adds the part to the program, with everything in it, or with what the word behind the part's own asks for. */
  readonly load: (program: Command, io: CliIo, verb: string | undefined) => Promise<void>;
}

const PARTS: readonly Part[] = [
  {
    name: "vms",
    description: "create, show and control VMs",
    async load(program, io, verb) {
      const { registerVms } = await import("./commands/vms/vms.ts");
      await registerVms(program.command(this.name).description(this.description), io, verb);
    },
  },
  {
    name: "deployments",
    description: "keep so many VMs alike, and change them one by one",
    async load(program, io) {
      const { registerDeployments } = await import("./commands/deployments/deployments.ts");
      registerDeployments(program.command(this.name).description(this.description), io);
    },
  },
  {
    name: "plugins",
    description: "install and manage what VMs run",
    async load(program, io) {
      const { registerPlugins } = await import("./commands/plugins/plugins.ts");
      registerPlugins(program.command(this.name).description(this.description), io);
    },
  },
  {
    name: "keys",
    description: "make, list and revoke keys of the API",
    async load(program, io) {
      const { registerKeys } = await import("./commands/keys/keys.ts");
      registerKeys(program.command(this.name).description(this.description), io);
    },
  },
  {
    name: "top",
    description: "show what VMs use now: processor, memory, network",
    async load(program, io) {
      const { registerTop } = await import("./commands/top/top.ts");
      registerTop(program.command(this.name).summary(this.description), io);
    },
  },
  {
    name: "events",
    description: "follow what happens to VMs, and show what happened",
    async load(program, io) {
      const { registerEvents } = await import("./commands/events/events.ts");
      registerEvents(program.command(this.name).description(this.description), io);
    },
  },
  {
    name: "mcp",
    description: "serve the Model Context Protocol on standard input and output",
    async load(program, io) {
      const { registerMcp } = await import("./commands/mcp/mcp.ts");
      registerMcp(program.command(this.name).summary(this.description), io);
    },
  },
  {
    name: "setup",
    description: "prepare this host: bridge, forwarding, rules",
    load: async (program) => (await import("./commands/setup/setup.ts")).registerSetup(program),
  },
  {
    name: "doctor",
    description: "check this host, and say how to put right what is wrong",
    async load(program, io) {
      const { registerDoctor } = await import("./commands/doctor/doctor.ts");
      registerDoctor(program.command(this.name).summary(this.description), io);
    },
  },
  {
    name: "kernel",
    description: "manage the guest kernel",
    load: async (program) => (await import("./commands/kernel/install.ts")).registerKernel(program),
  },
  {
    name: "backup",
    description: "write what volantd remembers into a file",
    async load(program, io) {
      const { registerBackup } = await import("./commands/backup/backup.ts");
      registerBackup(program.command(this.name).summary(this.description), io);
    },
  },
  {
    name: "restore",
    description: "put a backup in the place of volantd's database",
    async load(program, io) {
      const { registerRestore } = await import("./commands/restore/restore.ts");
      registerRestore(program.command(this.name).summary(this.description), io);
    },
  },
  {
    name: "version",
    description: "show the versions of volar and volantd",
    async load(program, io) {
      const { registerVersion } = await import("./commands/version/version.ts");
      registerVersion(program.command(this.name).description(this.description), io);
    },
  },
  {
    name: "completion",
    description: "print the script that completes volar's words in a shell",
    async load(program, io) {
      const { registerCompletion } = await import("./commands/completion/completion.ts");
      registerCompletion(program.command(this.name).summary(this.description), io);
    },
  },
  {
    name: "__complete",
    description: "candidates for the last word, for the shells' scripts",
    hidden: true,
    async load(program, io) {
      const { registerComplete } = await import("./commands/completion/completion.ts");
      registerComplete(program.command(this.name, { hidden: true }).description(this.description), io);
    },
  },
];

/** Global flags whose value may be the next word. */
const VALUE_FLAGS = new Set(["-a", "--api", "--api-key", "--output"]);

/** The words of a command line that are no global flag and no such flag's value; `help` is none, wherever it stands. Pure. */
export function operandsOf(argv: readonly string[]): string[] {
  const found: string[] = [];
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? "";
    if (VALUE_FLAGS.has(word)) index += 1;
    else if (word !== "--" && word !== "help" && !word.startsWith("-")) found.push(word);
  }
  return found;
}

type WriteText = (text: string) => void;

function toStderr({ stderr }: CliIo): WriteText {
  return (text) => void stderr.write(text);
}

/**
 * The program, with the part that `argv` asks for loaded. Its errors are thrown, never `process.exit`.
 *
 * @param writeErr what is done with its words on a command line that is not valid; by default they go to standard error
 */
export async function createProgram(
  argv: readonly string[],
  io: CliIo,
  writeErr: WriteText = toStderr(io),
): Promise<Command> {
  const [asked, verb] = operandsOf(argv);
  return assemble(io, writeErr, ({ name }) => name === asked, verb);
}

/** The program with all its parts, for what is made from the definitions. */
export async function createWholeProgram(io: CliIo): Promise<Command> {
  return assemble(io, toStderr(io), () => true);
}

async function assemble(
  io: CliIo,
  writeErr: WriteText,
  isLoaded: (part: Part) => boolean,
  verb?: string,
): Promise<Command> {
  const program = new Command("volar")
    .description("microVMs whose networking simply works")
    .version(VOLANT_VERSION, "--version", "print volar's version")
    .option(
      "-a, --api <url>",
      "address of volantd, or unix:/path (VOLANT_API_BASE; default: its socket, else http://127.0.0.1:7777)",
    )
    .option("--api-key <key>", "key of its API (VOLANT_API_KEY)")
    .addOption(new Option("--output <format>", "how to print (default: table)").choices(OUTPUT_FORMATS))
    .option("-q, --quiet", "print names only, a line each, and no progress")
    .showSuggestionAfterError()
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr,
      outputError: (text, write) => write(usageText(text)),
    });
  for (const part of PARTS) {
    if (isLoaded(part)) await part.load(program, io, verb);
    else program.command(part.name, { hidden: part.hidden === true }).description(part.description);
  }
  return program;
}
