import assert from "node:assert/strict";
import test, { before } from "node:test";
import type { Command } from "commander";
import { processIo } from "../../io.ts";
import { createWholeProgram } from "../../program.ts";
import { complete, visibleCommands } from "./complete.ts";

let program: Command;
before(async () => {
  program = await createWholeProgram(processIo());
});

function words(...line: string[]): string[] {
  return complete(program, line).candidates.map(({ word }) => word);
}

test("commands are completed, hidden ones and helpers are not named", () => {
  assert.deepEqual(words("v"), ["vms", "version"]);
  assert.ok(words("").includes("deployments"));
  assert.ok(!words("").some((word) => word.startsWith("_") || word === "help"));
  assert.deepEqual(words("vms", "config", ""), ["get", "set", "history"]);
  assert.deepEqual(words("help", "vms", "rest"), ["restart"]);
  assert.deepEqual(words("vms", "nonsense", ""), []);
});

test("flags are those of the command and the global ones, wherever other flags stand", () => {
  assert.deepEqual(words("vms", "list", "--s"), ["--status", "--sort"]);
  assert.deepEqual(words("vms", "list", "--out"), ["--output"]);
  assert.deepEqual(words("--output", "json", "vms", "--api=http://x", "cr"), ["create"]);
  assert.deepEqual(words("vms", "exec", "web", "--", "--e"), [], "after -- stand words of the guest's program");
  assert.ok(!words("vms", "create", "--wait-").includes("--wait-timeout"), "a hidden flag is not named");
});

test("values of flags are completed, as a word of their own and behind =", () => {
  assert.deepEqual(words("vms", "list", "--output", ""), ["table", "json", "yaml"]);
  assert.deepEqual(words("vms", "list", "--output=j"), ["--output=json"]);
  assert.deepEqual(words("vms", "create", "--network", "v"), ["vsock"]);
  assert.deepEqual(words("vms", "create", "--restart", "on"), ["on-failure"]);
  assert.deepEqual(words("vms", "wait", "--status", "s"), ["starting", "stopped"]);
  assert.deepEqual(words("completion", ""), ["bash", "zsh", "fish"]);
  assert.equal(complete(program, ["vms", "create", "--config", ""]).meaning.files, "files");
  assert.equal(complete(program, ["setup", "--work-dir="]).meaning.files, "folders");
});

test("where a name belongs, it is said of what, and which are there already", () => {
  const deleting = complete(program, ["vms", "delete", "a", "--timeout", "5", "b", ""]);
  assert.deepEqual([deleting.meaning.nouns, deleting.taken], [["vm"], ["a", "b"]]);
  assert.deepEqual(complete(program, ["vms", "get", "a", ""]).meaning.nouns, [], "there is no second name");
  assert.deepEqual(complete(program, ["vms", "create", ""]).meaning.nouns, [], "a new name is nobody's");
  const flag = complete(program, ["vms", "create", "x", "--plugin=h"]);
  assert.deepEqual([flag.meaning.nouns, flag.before], [["plugin"], "--plugin="]);
  assert.deepEqual(complete(program, ["vms", "cp", "a", ""]).meaning, {
    nouns: ["vm"],
    words: [],
    files: "files",
    suffix: ":",
  });
  assert.deepEqual(complete(program, ["-a", "http://x", "--api-key=k", "vms", "get", ""]).values, {
    api: "http://x",
    apiKey: "k",
  });
});

function everyCommand(command: Command): Command[] {
  return visibleCommands(command).flatMap((one) => [one, ...everyCommand(one)]);
}

test("every command that shows or takes an object can be completed: its place in the line is found again", () => {
  const all = everyCommand(program);
  assert.ok(all.length > 40);
  for (const command of all) {
    const path: string[] = [];
    for (let one = command; one.parent !== null; one = one.parent) path.unshift(one.name());
    assert.ok(words(...path).includes(command.name()), path.join(" "));
    for (const option of command.options.filter(({ hidden, long }) => !hidden && long != null)) {
      assert.ok(words(...path, option.long ?? "").includes(option.long ?? ""), `${path.join(" ")} ${option.long}`);
    }
  }
});
