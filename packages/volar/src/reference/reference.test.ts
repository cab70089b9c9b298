import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import test, { before } from "node:test";
import { processIo } from "../io.ts";
import { createWholeProgram } from "../program.ts";
import { describe, leaves, type Described } from "./describe.ts";
import { MAN_FOLDER, referenceFiles } from "./files.ts";
import { manualPages, roff } from "./man.ts";
import { markdownReference } from "./markdown.ts";

const root = join(import.meta.dirname, "../../../..");
let program: Described;
before(async () => {
  program = describe(await createWholeProgram(processIo()));
});

test("docs/cli.md and the manual pages are as the commands' definitions are: node scripts/cli-reference.ts writes them", async () => {
  const files = await referenceFiles();
  for (const [path, text] of files) {
    assert.ok(readFileSync(join(root, path), "utf8") === text, `${path} is stale: run node scripts/cli-reference.ts`);
  }
  const expected = [...files.keys()]
    .filter((path) => path.startsWith(MAN_FOLDER))
    .map((path) => path.split("/").at(-1));
  assert.deepEqual(readdirSync(join(root, MAN_FOLDER)).sort(), expected.sort());
});

test("every command, argument and option has words that say what it is", () => {
  for (const command of [program, ...leaves(program)]) {
    assert.notEqual(command.summary, "", command.path);
    assert.notEqual(command.description, "", command.path);
    for (const { term, text } of [...command.arguments, ...command.options]) {
      assert.notEqual(text, "", `${command.path} ${term}`);
    }
  }
});

test("every command and every option is in both documents", () => {
  const markdown = markdownReference(program);
  const pages = [...manualPages(program).values()].join("");
  for (const command of leaves(program)) {
    assert.ok(markdown.includes(`### ${command.path}\n`), command.path);
    assert.ok(pages.includes(roff(command.path)), command.path);
    for (const { term } of command.options) {
      assert.ok(markdown.includes(`\`${term.replaceAll("|", "\\|")}\``), term);
      assert.ok(pages.includes(`\\fB${roff(term)}\\fR`), term);
    }
  }
});

test("text of a manual page can't become a macro or an escape", () => {
  assert.equal(roff(".TH x\n.SH y"), "\\&.TH x\n\\&.SH y");
  assert.equal(roff("'quoted' \\fBbold --flag ~ ^ `"), "\\(aqquoted\\(aq \\efBbold \\-\\-flag \\(ti \\(ha \\(ga");
  for (const [name, page] of manualPages(program)) {
    for (const line of page.split("\n").filter((one) => one.startsWith("."))) {
      assert.match(line, /^\.(\\"|TH|SH|SS|TP|PP|br|nh|ad)( |$)/, name);
    }
  }
});
