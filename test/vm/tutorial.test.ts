/** docs/plugin-tutorial.md, followed as a reader does: each file written, each command typed, on a host of its own with a real VM. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import test, { after, before } from "node:test";
import { enterOwnNamespace } from "../namespace.ts";
import { type House, openHouse, root, runProgram } from "./house.ts";
import { isAsPrinted, tutorialSteps } from "../tutorial-steps.ts";

enterOwnNamespace(import.meta.url);

const steps = tutorialSteps(readFileSync(join(root, "docs/plugin-tutorial.md"), "utf8"));
let house: House;
let folder: string;

before(async () => {
  house = await openHouse();
  folder = join(house.directory, "greeter");
  mkdirSync(folder);
});

after(() => house?.close());

/** Types a command into a shell in the reader's folder. */
async function type(command: string, printed: string): Promise<void> {
  const environment = { ...house.environment, PATH: `${join(root, "bin")}:${process.env["PATH"]}` };
  const { code, stdout, stderr } = await runProgram("sh", ["-c", command], environment, folder);
  assert.deepEqual([code, stderr], [0, ""], `${command}\n${stdout}\nvolantd said:\n${house.log.slice(-4000)}`);
  assert.ok(isAsPrinted(printed, stdout), `${command} printed\n${stdout}and the tutorial says\n${printed}`);
}

test("the plugin tutorial's files and commands, in their order, do and print what it says", async () => {
  assert.equal(steps.filter(({ kind }) => kind === "file").length, 5);
  assert.ok(steps.length > 20);
  for (const step of steps) {
    if (step.kind === "command") {
      await type(step.command, step.printed);
      continue;
    }
    const path = join(folder, step.path);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, step.text);
  }
  assert.deepEqual(await house.vms(), []);
});
