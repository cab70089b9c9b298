import assert from "node:assert/strict";
import test from "node:test";
import { Command } from "commander";
import { commandPath, givenNames } from "./given-names.ts";
import { flagPlaceholder, meaningOf } from "./placeholders.ts";

test("a placeholder tells what it stands for", () => {
  assert.deepEqual(meaningOf("vm").nouns, ["vm"]);
  assert.deepEqual(meaningOf("plugins...").nouns, ["plugin"]);
  assert.deepEqual(meaningOf("vm|deployment").nouns, ["vm", "deployment"]);
  assert.deepEqual(meaningOf("name").nouns, []);
  assert.deepEqual(meaningOf("constructor"), { nouns: [], words: [], files: undefined, suffix: "" });
  assert.equal(meaningOf("folder").files, "folders");
  assert.ok(meaningOf("mode").words.includes("vsock"));
  assert.equal(flagPlaceholder("-p, --publish <port>"), "port");
  assert.equal(flagPlaceholder("--wait"), undefined);
});

test("names are found among arguments and flags by their placeholders", () => {
  const program = new Command("volar");
  const command = program
    .command("try")
    .argument("<name>")
    .argument("<vms...>")
    .option("--plugin <plugin>")
    .option("--env <key=value>")
    .action(() => undefined);
  program.parse(["try", "new", "a", "b", "--plugin", "hello", "--env", "x=y"], { from: "user" });
  assert.equal(commandPath(command), "volar try");
  assert.deepEqual(givenNames(command), [
    { name: "a", nouns: ["vm"] },
    { name: "b", nouns: ["vm"] },
    { name: "hello", nouns: ["plugin"] },
  ]);
});

test("of a path in a guest, the VM is what stands before the colon; a path of this machine names none", () => {
  const program = new Command("volar");
  const command = program
    .command("cp")
    .argument("<source>")
    .argument("<target>")
    .action(() => undefined);
  program.parse(["cp", "web:/etc/hosts", "hosts"], { from: "user" });
  assert.deepEqual(givenNames(command), [{ name: "web", nouns: ["vm"] }]);
});
