/** What a command line named, by the command's definition. */
import type { Command } from "commander";
import type { GivenName } from "./next-step.ts";
import { flagPlaceholder, meaningOf } from "./placeholders.ts";

function namesIn(value: unknown): string[] {
  if (typeof value === "string") return [value];
  return Array.isArray(value) ? value.flatMap(namesIn) : [];
}

/** The names among a parsed command's arguments and flags. */
export function givenNames(command: Command): GivenName[] {
  const values: Record<string, unknown> = command.opts();
  const found = [
    ...command.registeredArguments.map((argument, index) => [argument.name(), command.processedArgs[index]] as const),
    ...command.options.map((option) => [flagPlaceholder(option.flags) ?? "", values[option.attributeName()]] as const),
  ];
  return found.flatMap(([placeholder, value]) => {
    const { nouns, suffix } = meaningOf(placeholder);
    if (nouns.length === 0) return [];
    const names = namesIn(value);
    // Of `web:/etc/hosts` the name is what stands before the colon.
    const own =
      suffix === "" ? names : names.flatMap((text) => (text.includes(suffix) ? [text.split(suffix, 1)[0] ?? ""] : []));
    return own.map((name) => ({ name, nouns }));
  });
}

/** The command as it is written, from the program on: `volar vms config get`. */
export function commandPath(command: Command): string {
  const parent = command.parent === null ? "" : `${commandPath(command.parent)} `;
  return `${parent}${command.name()}`;
}
