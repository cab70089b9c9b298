import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { enterOwnNamespace, ipJson } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

test("the README's example runs, prints what it promises, and leaves nothing behind", () => {
  const example = fileURLToPath(new URL("../../packages/netlink/examples/bridge.ts", import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [example], { encoding: "utf8", timeout: 20_000 });
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^demo-tap is there$/m);
  assert.match(stdout, /name: 'demo-tap',\s+alias: 'the first guest',\s+owner: 1000,\s+carrier: true/);
  assert.match(stdout, /^EEXIST – create bridge demo0: .*\(EEXIST\)$/m);
  assert.deepEqual(
    ipJson("link", "show").map((link) => link["ifname"]),
    ["lo"],
  );
});
