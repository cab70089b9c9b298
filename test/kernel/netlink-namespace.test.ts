import assert from "node:assert/strict";
import test from "node:test";
import { enterOwnNamespace, ipJson } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

test("a kernel test sees nothing but its own lo, which is up", () => {
  const links = ipJson("link", "show");
  assert.deepEqual(
    links.map((link) => link["ifname"]),
    ["lo"],
  );
  const [lo] = links;
  assert.ok(lo !== undefined && (lo["flags"] as string[]).includes("UP"));
});
