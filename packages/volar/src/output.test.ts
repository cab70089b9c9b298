import assert from "node:assert/strict";
import test from "node:test";
import { parse as parseYaml } from "yaml";
import { askedFormat, render, renderItem, result } from "./output.ts";
import { formatTable } from "./table.ts";

const many = result([{ name: "a" }, { name: "b\u001b[2J" }, { other: 1 }], () => "TEXT\n");

test("a result is text, JSON or YAML, and each holds the same data", async () => {
  assert.equal(await render(many, "table"), "TEXT\n");
  assert.deepEqual(JSON.parse(await render(many, "json")), many.data);
  assert.deepEqual(parseYaml(await render(many, "yaml")), many.data);
});

test("--quiet leaves names in every format, and nothing of what has none", async () => {
  assert.equal(await render(many, "table", true), "a\nb\\x1b[2J\n");
  assert.deepEqual(JSON.parse(await render(many, "json", true)), ["a", "b\u001b[2J"]);
  assert.deepEqual(parseYaml(await render(many, "yaml", true)), ["a", "b\u001b[2J"]);
  assert.equal(await render(result({ name: "one" }, String), "table", true), "one\n");
  for (const data of [{}, [], null, "text", { name: 7 }]) {
    assert.equal(await render(result<unknown>(data, String), "table", true), "");
  }
  const renamed = result({ version: 3 }, String, [], ({ version }) => [String(version)]);
  assert.equal(await render(renamed, "table", true), "3\n");
});

test("items of a stream are documents of their own, so that each can be read when it comes", async () => {
  const item = { line: "x\ny" };
  assert.equal(await renderItem(item, "table", () => "for people"), "for people\n");
  assert.equal(await renderItem(item, "json", String), '{"line":"x\\ny"}\n');
  assert.match(await renderItem(item, "yaml", String), /^---\nline: /);
});

test("a row has all its columns: a cell with nothing in it is a dash", () => {
  assert.equal(
    formatTable([
      ["A", "B", "C"],
      ["1", "", ""],
    ]),
    "A  B  C\n1  -  -\n",
  );
});

test("the format is known from the words, too, where the command line is not valid; what is another program's does not count", () => {
  assert.equal(askedFormat(["vms", "lst", "--output", "json"]), "json");
  assert.equal(askedFormat(["--output=yaml", "vms"]), "yaml");
  assert.equal(askedFormat(["doctor", "--json"]), "json");
  assert.equal(askedFormat(["vms", "list", "--output"]), "table");
  assert.equal(askedFormat(["vms", "list", "--output", "xml"]), "table");
  assert.equal(askedFormat(["vms", "exec", "a", "--", "ls", "--output", "json", "--json"]), "table");
});
