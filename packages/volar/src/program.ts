/**
 * The command tree. Only the part that the command line asks for is loaded, the rest is named: what a command needs should not slow down the
 * others.
 */
import { VOLANT_VERSION } from "@volant/contract/defaults";
import { Command, Option } from "commander";
import type { CliIo } from "./io.ts";
import { OUTPUT_FORMATS } from "./output.ts";

interface Part {
  readonly name: string;
  readonly description: string;
  /** Adds the part to the program, with everything in it. */
  readonly load: (program: Command, io: CliIo) => Promise<void>;
}

const PARTS: readonly Part[] = [
  {
    name: "vms",
    description: "create, show and control VMs",
    async load(program, io) {
      const { registerVms } = await import("./commands/vms/vms.ts");
      registerVms(program.command(this.name).description(this.description), io);
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
    name: "events",
    description: "follow what happens to VMs",
    async load(program, io) {
      const { registerEvents } = await import("./commands/events/events.ts");
      registerEvents(program.command(this.name).description(this.description), io);
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
    name: "version",
    description: "show the versions of volar and volantd",
    async load(program, io) {
      const { registerVersion } = await import("./commands/version/version.ts");
      registerVersion(program.command(this.name).description(this.description), io);
    },
  },
];

/** Global flags whose value may be the next word. */
const VALUE_FLAGS = new Set(["-a", "--api", "--api-key", "--output"]);

/** The first word of a command line that is no flag and no flag's value; after `help`, the next one. Pure. */
export function firstOperand(argv: readonly string[]): string | undefined {
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? "";
    if (VALUE_FLAGS.has(word)) index += 1;
    else if (word !== "--" && word !== "help" && !word.startsWith("-")) return word;
  }
  return undefined;
}

/** The program, with the part that `argv` asks for loaded. Its errors are thrown, never `process.exit`. */
export async function createProgram(argv: readonly string[], io: CliIo): Promise<Command> {
  const program = new Command("volar")
    .description("microVMs whose networking simply works")
    .version(VOLANT_VERSION, "--version", "print volar's version")
    .option("-a, --api <url>", "address of volantd (VOLANT_API_BASE; default: http://127.0.0.1:7777)")
    .option("--api-key <key>", "key of its API (VOLANT_API_KEY)")
    .addOption(new Option("--output <format>", "how to print (default: table)").choices(OUTPUT_FORMATS))
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, "volar: ")),
    });
  const asked = firstOperand(argv);
  for (const part of PARTS) {
    if (part.name === asked) await part.load(program, io);
    else program.command(part.name).description(part.description);
  }
  return program;
}
