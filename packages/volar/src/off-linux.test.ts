import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import test from "node:test";

const preload = join(import.meta.dirname, "../../volantd/src/testing/off-linux.ts");

function volar(...args: string[]): { readonly code: number | null; readonly stdout: string; readonly stderr: string } {
  const argv = ["--import", preload, join(import.meta.dirname, "main.ts"), ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: "utf8" });
  return { code: status, stdout, stderr };
}

for (const args of [["setup"], ["setup", "--undo"], ["setup", "--dry-run"]]) {
  test(`off Linux \`volar ${args.join(" ")}\` says what it is for and what works without it, with exit code 1`, () => {
    assert.deepEqual(volar(...args), {
      code: 1,
      stdout: "",
      stderr:
        "volar: volar setup sets up Linux hosts, and this is darwin\n" +
        "  volantd runs here without it: it then uses taps that you make by hand\n",
    });
  });
}

test("off Linux `volar doctor` says that it looks at Linux hosts, with exit code 1", () => {
  assert.deepEqual(volar("doctor"), {
    code: 1,
    stdout: "",
    stderr: "volar: volar doctor looks at Linux hosts, and this is darwin\n  run it on the host that runs volantd\n",
  });
});

test("off Linux the commands that talk to a volantd elsewhere load neither netlink nor koffi", () => {
  const { code, stderr } = volar("vms", "list", "--api", "http://127.0.0.1:9");
  assert.equal(code, 1);
  assert.match(stderr, /does not answer at http:\/\/127\.0\.0\.1:9/);
  assert.equal(volar("--help").code, 0);
});
