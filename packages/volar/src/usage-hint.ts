/** What to do about a command line that is not valid. Pure. */
import type { Command } from "commander";
import { commandPath } from "./given-names.ts";

/** As commander writes them. */
const SUGGESTION = /\n?\(Did you mean (?:one of )?(.*)\?\)\n?$/s;

/** Commander's words as volar's own: a sentence, and below it the suggestion where there is one. */
export function usageText(message: string): string {
  const suggested = SUGGESTION.exec(message)?.[1];
  const sentence = message
    .replace(SUGGESTION, "")
    .replace(/^error: /, "volar: ")
    .trimEnd();
  return suggested === undefined ? `${sentence}\n` : `${sentence}\n  did you mean ${orList(suggested)}?\n`;
}

/** `a, b, c` as `a, b or c`. */
function orList(list: string): string {
  return list.replace(/, ([^,]*)$/, " or $1");
}

/** The innermost command that words lead to. */
export function findCommand(program: Command, words: readonly string[]): Command {
  let found = program;
  for (const word of words) {
    found = found.commands.find((command) => command.name() === word || command.aliases().includes(word)) ?? found;
  }
  return found;
}

/** The hint below an error for which commander has no suggestion. */
export function usageHint(program: Command, words: readonly string[]): string {
  return `  ${commandPath(findCommand(program, words))} --help shows what it takes\n`;
}

/** Where a verb stands without its noun: `volar list`. */
export function missingNoun(parts: readonly Command[], word: string): string | undefined {
  const noun = parts.find(({ commands }) => commands.some((command) => command.name() === word));
  return noun === undefined ? undefined : `  did you mean ${commandPath(noun)} ${word}?\n`;
}
