import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const read = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8");

test("the README shows the example as it is in examples/bridge.ts, which the kernel tests run", () => {
  const program = read("../examples/bridge.ts").replace(/^\/\*\*.*\*\/\n/, "");
  assert.ok(read("../README.md").includes("```ts\n" + program + "```"), "copy examples/bridge.ts into README.md");
});
