import assert from "node:assert/strict";
import test from "node:test";
import { parseCopyEnd } from "./cp.ts";

test("a VM's name and a colon begin a path in a guest, everything else is this machine's", () => {
  assert.deepEqual(parseCopyEnd("web:/etc/hosts"), { kind: "guest", vm: "web", path: "/etc/hosts" });
  assert.deepEqual(parseCopyEnd("web-1.a:etc/a:b"), { kind: "guest", vm: "web-1.a", path: "/etc/a:b" });
  assert.deepEqual(parseCopyEnd("./web:/etc"), { kind: "local", path: "./web:/etc" });
  assert.deepEqual(parseCopyEnd("/web:x"), { kind: "local", path: "/web:x" });
  assert.deepEqual(parseCopyEnd("file"), { kind: "local", path: "file" });
  assert.deepEqual(parseCopyEnd("-"), { kind: "standard" });
  assert.throws(() => parseCopyEnd("web:"), { code: "invalid" });
});
