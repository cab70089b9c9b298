/** A command's definition as data, for the documents that are made of it. Pure. */
import type { Command, Help } from "commander";
import { visibleCommands } from "../commands/completion/complete.ts";
import { commandPath } from "../given-names.ts";

export interface Term {
  readonly term: string;
  readonly text: string;
}

export interface Described {
  /** `volar vms create` */
  readonly path: string;
  /** What follows it on the command line. */
  readonly usage: string;
  /** A few words. */
  readonly summary: string;
  /** Sentences, or the same few words. */
  readonly description: string;
  /** Other names of its last word. */
  readonly aliases: readonly string[];
  readonly arguments: readonly Term[];
  readonly options: readonly Term[];
  readonly commands: readonly Described[];
}

function optionTerms(command: Command, help: Help): Term[] {
  return help
    .visibleOptions(command)
    .filter(({ long }) => long !== "--help")
    .map((option) => ({ term: help.optionTerm(option), text: help.optionDescription(option) }));
}

/** The definition of a command and of all below it. */
export function describe(command: Command): Described {
  const help = command.createHelp();
  const operands = command.registeredArguments.map((argument) => help.argumentTerm(argument));
  const shown = command.registeredArguments.map(({ required, variadic }, index) => {
    const name = `${operands[index]}${variadic ? "..." : ""}`;
    return required ? `<${name}>` : `[${name}]`;
  });
  const options = optionTerms(command, help);
  const below = visibleCommands(command);
  const usage = [...(options.length > 0 ? ["[options]"] : []), ...(below.length > 0 ? ["<command>"] : []), ...shown];
  return {
    path: commandPath(command),
    usage: usage.join(" "),
    summary: command.summary() || command.description(),
    description: command.description() || command.summary(),
    aliases: command.aliases(),
    arguments: command.registeredArguments.flatMap((argument, index) => {
      const text = help.argumentDescription(argument);
      return text === "" ? [] : [{ term: shown[index] ?? "", text }];
    }),
    options,
    commands: below.map(describe),
  };
}

/** Commands that do something: a command that only groups others is none. */
export function leaves(described: Described): Described[] {
  return described.commands.length === 0 ? [described] : described.commands.flatMap(leaves);
}

export const EXIT_CODES: readonly Term[] = [
  { term: "0", text: "done" },
  { term: "1", text: "failed" },
  { term: "2", text: "the command line, or what it asks for, is not valid" },
];

export const ENVIRONMENT: readonly Term[] = [
  { term: "VOLANT_API_BASE", text: "address of volantd, where --api does not say it" },
  {
    term: "VOLANT_COMPLETION_TIMEOUT",
    text: "how long the Tab key waits for names, such as 300ms or 3s (default: 1s)",
  },
  { term: "VOLANT_API_KEY", text: "key of its API, where --api-key does not say it" },
];

/** What --output and --quiet do, in sentences. */
export const OUTPUT_TEXT =
  "Answers go to standard output, errors and progress to standard error. --output json and --output yaml print the same data as the API has it; what comes " +
  "piece by piece (events, logs, top) is one document after the other, in JSON a line each; so are errors, with the fields error, code and hint. --quiet prints names alone, in the same formats.";
