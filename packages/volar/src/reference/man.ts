/** Manual pages, from the commands' definitions, in the macros of man(7). Pure. */
import { VOLANT_VERSION } from "@volant/contract/defaults";
import { ENVIRONMENT, EXIT_CODES, leaves, OUTPUT_TEXT, type Described, type Term } from "./describe.ts";

/** Text as it is (groff(7)): no escape, no hyphen that can't be copied, no line that is taken for a macro. */
export function roff(text: string): string {
  const escaped = text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("'", "\\(aq").replaceAll("~", "\\(ti");
  return escaped.replaceAll("^", "\\(ha").replaceAll("`", "\\(ga").replaceAll(/^\./gm, "\\&.");
}

function bold(text: string): string {
  return `\\fB${roff(text)}\\fR`;
}

function sentence(text: string): string {
  const first = `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
  return roff(/[.!?]$/.test(first) ? first : `${first}.`);
}

function terms(list: readonly Term[]): string[] {
  return list.flatMap(({ term, text }) => [".TP", bold(term), roff(text)]);
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [`.SH ${title}`, ...lines];
}

function pageName(path: string): string {
  return path.replaceAll(" ", "-");
}

function head({ path, summary }: Described): string[] {
  const title = roff(pageName(path).toUpperCase());
  const generator = ".\\\" Made from the commands' definitions by scripts/cli-reference.ts.";
  return [
    generator,
    `.TH ${title} 1 "" "Volant ${VOLANT_VERSION}" "Volant"`,
    ".nh",
    ".ad l",
    ".SH NAME",
    `${roff(pageName(path))} \\- ${roff(summary)}`,
  ];
}

function synopsis(commands: readonly Described[]): string[] {
  return commands.flatMap(({ path, usage }, index) => [
    ...(index === 0 ? [] : [".br"]),
    `${bold(path)}${usage === "" ? "" : ` ${roff(usage)}`}`,
  ]);
}

/** One command of a page that has several. */
function subsection(command: Described): string[] {
  const { path, usage, description, aliases } = command;
  const others = aliases.length === 0 ? [] : [".PP", `Also ${aliases.map(bold).join(", ")}.`];
  return [
    `.SS ${roff(`${path} ${usage}`.trimEnd())}`,
    sentence(description),
    ...others,
    ...terms(command.arguments),
    ...terms(command.options),
  ];
}

function programPage(program: Described): string[] {
  const parts = program.commands.map(({ path, summary }) => ({ term: path, text: summary }));
  return [
    ...head(program),
    ...section("SYNOPSIS", synopsis([program])),
    ...section("DESCRIPTION", [roff(OUTPUT_TEXT)]),
    ...section("OPTIONS", terms(program.options)),
    ...section("COMMANDS", terms(parts)),
    ...section("EXIT STATUS", terms(EXIT_CODES)),
    ...section("ENVIRONMENT", terms(ENVIRONMENT)),
    ...section("SEE ALSO", [program.commands.map(({ path }) => `${bold(pageName(path))}(1)`).join(",\n")]),
  ];
}

function partPage(part: Described, program: Described): string[] {
  const commands = leaves(part);
  const isGroup = part.commands.length > 0;
  return [
    ...head(part),
    ...section("SYNOPSIS", synopsis(commands)),
    ...section("DESCRIPTION", [
      sentence(part.description),
      ".PP",
      `Options of all commands are in ${bold(program.path)}(1).`,
    ]),
    ...(isGroup
      ? section("COMMANDS", commands.flatMap(subsection))
      : [...section("ARGUMENTS", terms(part.arguments)), ...section("OPTIONS", terms(part.options))]),
    ...section("SEE ALSO", [`${bold(program.path)}(1)`]),
  ];
}

/** The pages by their file's name: one for the program, and one for each of its parts. */
export function manualPages(program: Described): Map<string, string> {
  const pages = [
    [pageName(program.path), programPage(program)] as const,
    ...program.commands.map((part) => [pageName(part.path), partPage(part, program)] as const),
  ];
  return new Map(pages.map(([name, lines]) => [`${name}.1`, `${lines.join("\n")}\n`]));
}
