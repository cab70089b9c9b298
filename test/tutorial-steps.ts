/** What a tutorial asks its reader to do, read from its text. Pure. */

export type TutorialStep =
  | { readonly kind: "file"; readonly path: string; readonly text: string }
  | { readonly kind: "command"; readonly command: string; readonly printed: string };

/** A block between fences, with the line that stands before it. */
const BLOCK = /(?:^(?<before>[^\n]*)\n\n?)?^```(?<language>\w*)\n(?<text>.*?)^```$/gms;

/** `$ ` begins a command; what follows up to the next one is what it prints. */
function commandsOf(text: string): TutorialStep[] {
  return text
    .split(/^\$ /m)
    .slice(1)
    .map((part) => {
      const end = part.indexOf("\n");
      return { kind: "command", command: part.slice(0, end), printed: part.slice(end + 1) };
    });
}

/**
 * Its steps, in order. A `console` block has commands; any other is a file, whose name stands above it.
 *
 * @throws Error at a block that is neither: a reader would not know what to do with it
 */
export function tutorialSteps(document: string): TutorialStep[] {
  return [...document.matchAll(BLOCK)].flatMap(({ groups = {} }): TutorialStep[] => {
    const { before = "", language = "", text = "" } = groups;
    if (language === "console" && text.startsWith("$ ")) return commandsOf(text);
    const path = /^`([\w./-]+)`$/.exec(before)?.[1];
    if (path === undefined)
      throw new Error(`neither a file's name stands above this block, nor is it of commands:\n${text}`);
    return [{ kind: "file", path, text }];
  });
}

/** Text as a pattern that it alone fits. */
const escape = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");

/** Whether a program printed what a tutorial says: `…` stands for any text of its line, and where it is the whole line, for any lines. */
export function isAsPrinted(expected: string, printed: string): boolean {
  const lines = expected.split("\n").slice(0, -1);
  const patterns = lines.map((line) => {
    if (line === "…") return "(?:[^\\n]*\\n)*?";
    return `${line.split("…").map(escape).join("[^\\n]*")} *\\n`;
  });
  return new RegExp(`^${patterns.join("")}$`).test(printed);
}
