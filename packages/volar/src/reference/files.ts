/** The documents about volar that are made from the commands' definitions, by their paths from the root of the repository. */
import { processIo } from "../io.ts";
import { createWholeProgram } from "../program.ts";
import { describe } from "./describe.ts";
import { manualPages } from "./man.ts";
import { markdownReference } from "./markdown.ts";

/** Where the manual pages are: this folder holds nothing else. */
export const MAN_FOLDER = "docs/man";

/** Paths and contents. */
export async function referenceFiles(): Promise<Map<string, string>> {
  const program = describe(await createWholeProgram(processIo()));
  const pages = [...manualPages(program)].map(([name, text]) => [`${MAN_FOLDER}/${name}`, text] as const);
  return new Map([["docs/cli.md", markdownReference(program)], ...pages]);
}
