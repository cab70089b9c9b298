/** What may stand at the end of a command line that is still being written, by the commands' definitions. Pure. */
import type { Argument, Command, Option } from "commander";
import { flagPlaceholder, meaningOf, type Meaning } from "../../placeholders.ts";

export interface Candidate {
  readonly word: string;
  /** What it is, in a few words. */
  readonly about: string;
}

export interface Completions {
  readonly candidates: readonly Candidate[];
  /** Names that volantd knows belong here, too, each between `before` and `meaning.suffix`, but not those that stand there already. */
  readonly meaning: Meaning;
  readonly before: string;
  readonly taken: readonly string[];
  /** Values of flags so far, by the names that commander gives them. */
  readonly values: Readonly<Record<string, string>>;
}

/** How far a command line leads. */
interface Place {
  readonly command: Command;
  readonly operands: readonly string[];
  readonly values: Readonly<Record<string, string>>;
  /** The flag whose value comes next. */
  readonly open: Option | undefined;
  /** `--` has been: no flag comes any more. */
  readonly isEnded: boolean;
}

const NOTHING = meaningOf("");

/** The flags of a command and of those around it, the nearest first, without hidden ones. */
function flagsOf(command: Command): Option[] {
  const own = command.options.filter((option) => !option.hidden);
  return command.parent === null ? own : [...own, ...flagsOf(command.parent)];
}

function findFlag(command: Command, word: string): Option | undefined {
  const [name] = word.split("=", 1);
  return flagsOf(command).find((option) => option.long === name || option.short === name);
}

function walk(program: Command, words: readonly string[]): Place {
  let command = program;
  const operands: string[] = [];
  const values: Record<string, string> = {};
  let open: Option | undefined;
  let isEnded = false;
  for (const word of words) {
    if (open !== undefined) {
      values[open.attributeName()] = word;
      open = undefined;
    } else if (isEnded) operands.push(word);
    else if (word === "--") isEnded = true;
    else if (word.startsWith("-")) {
      const flag = findFlag(command, word);
      if (flag?.required !== true) continue;
      if (word.includes("=")) values[flag.attributeName()] = word.slice(word.indexOf("=") + 1);
      else open = flag;
    } else if (command.commands.length > 0) {
      if (word === "help") continue;
      const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
      // Below a command that does not exist there is nothing.
      if (next === undefined) return { command, operands: [word], values, open, isEnded: true };
      command = next;
    } else operands.push(word);
  }
  return { command, operands, values, open, isEnded };
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0] ?? "";
}

function valuesOf(
  placeholder: string,
  choices: readonly string[] | undefined,
): { words: readonly string[]; meaning: Meaning } {
  const meaning = meaningOf(placeholder);
  return { words: choices ?? meaning.words, meaning };
}

function argumentAt(command: Command, index: number): Argument | undefined {
  const found = command.registeredArguments;
  const last = found.at(-1);
  return found[index] ?? (last?.variadic === true ? last : undefined);
}

/**
 * What can follow.
 *
 * @param words those after the program's name; the last is the one that is being written, and may be empty
 */
export function complete(program: Command, words: readonly string[]): Completions {
  const current = words.at(-1) ?? "";
  const { command, operands, values, open, isEnded } = walk(program, words.slice(0, -1));
  const finish = (candidates: readonly Candidate[], meaning = NOTHING, before = ""): Completions => ({
    candidates: candidates.filter(({ word }) => word.startsWith(current)),
    meaning,
    before,
    taken: operands,
    values,
  });
  const value = (placeholder: string, choices: readonly string[] | undefined, before = ""): Completions => {
    const found = valuesOf(placeholder, choices);
    return finish(
      found.words.map((word) => ({ word: `${before}${word}`, about: "" })),
      found.meaning,
      before,
    );
  };
  if (open !== undefined) return value(flagPlaceholder(open.flags) ?? "", open.argChoices);
  if (!isEnded && current.startsWith("-")) {
    const equals = current.indexOf("=");
    if (equals === -1) {
      const flags = flagsOf(command).filter(({ long }) => long != null);
      return finish(flags.map(({ long, description }) => ({ word: long ?? "", about: firstLine(description) })));
    }
    const flag = findFlag(command, current);
    if (flag?.required !== true) return finish([]);
    return value(flagPlaceholder(flag.flags) ?? "", flag.argChoices, current.slice(0, equals + 1));
  }
  if (command.commands.length > 0) {
    if (operands.length > 0) return finish([]);
    return finish(
      visibleCommands(command).map((one) => ({
        word: one.name(),
        about: firstLine(one.summary() || one.description()),
      })),
    );
  }
  const argument = argumentAt(command, operands.length);
  return argument === undefined ? finish([]) : value(argument.name(), argument.argChoices);
}

/** Commands that help shows; commander's own `help` is none of them. */
export function visibleCommands(command: Command): Command[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .filter((one) => one.name() !== "help");
}
