/** docs/cli.md, from the commands' definitions. Pure. */
import { ENVIRONMENT, EXIT_CODES, leaves, OUTPUT_TEXT, type Described, type Term } from "./describe.ts";

const HEAD = `# volar

The command line of Volant. This page is made from the commands' definitions (\`node scripts/cli-reference.ts\`), as the manual pages in [man](man) are:
\`man -l docs/man/volar.1\`. \`source <(volar completion bash)\` makes the Tab key complete all of it.
`;

/** Text as it is: no tag, no table cell ends in it. */
function plain(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("|", "\\|").replaceAll("<", "&lt;").replaceAll("*", "\\*");
}

function sentence(text: string): string {
  const first = `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
  return plain(/[.!?]$/.test(first) ? first : `${first}.`);
}

function table(heads: readonly [string, string], terms: readonly Term[]): string[] {
  if (terms.length === 0) return [];
  const rows = terms.map(({ term, text }) => `| \`${term.replaceAll("|", "\\|")}\` | ${plain(text)} |`);
  return ["", `| ${heads[0]} | ${heads[1]} |`, "|---|---|", ...rows];
}

function section(command: Described): string[] {
  const { path, usage, description, aliases } = command;
  const others = aliases.length === 0 ? [] : ["", `Also ${aliases.map((alias) => `\`${alias}\``).join(", ")}.`];
  return [
    "",
    `### ${path}`,
    "",
    "```",
    `${path} ${usage}`.trimEnd(),
    "```",
    "",
    sentence(description),
    ...others,
    ...table(["argument", "what it is"], command.arguments),
    ...table(["option", "what it does"], command.options),
  ];
}

/** The whole page. */
export function markdownReference(program: Described): string {
  const parts = program.commands.flatMap((part) => [
    "",
    `## ${part.summary.charAt(0).toUpperCase()}${part.summary.slice(1)}`,
    ...leaves(part).flatMap(section),
  ]);
  const lines = [
    HEAD.trimEnd(),
    "",
    "## All commands",
    "",
    "```",
    `${program.path} ${program.usage}`,
    "```",
    "",
    plain(OUTPUT_TEXT),
    ...table(["option", "what it does"], program.options),
    ...table(["exit code", "meaning"], EXIT_CODES),
    "",
    "[volar doctor](doctor.md), and `exec` and `shell`, which end as their program does, have their own.",
    ...table(["variable", "meaning"], ENVIRONMENT),
    ...parts,
  ];
  return `${lines.join("\n")}\n`;
}
