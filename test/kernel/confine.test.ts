/** What confines hypervisors, against the kernel: kestrel/src/bin/volant-confine.rs. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import test from "node:test";
import { confinerPath } from "@volant/host/installation";
import { confinedCommand, type Confinement } from "../../packages/volantd/src/runtime/qemu/argv.ts";

const USER = 1_999_999_999;
const confinement: Confinement = {
  confiner: confinerPath(),
  uid: USER,
  gid: USER - 1,
  groups: [],
  maxFileBytes: 4096,
  maxOpenFiles: 64,
};

function run(how: Confinement, program: string, args: readonly string[] = [], before: readonly string[] = []) {
  const [command = "", ...rest] = [...before, ...confinedCommand(how, program, args)];
  // A group of root's own, so that giving them up is seen.
  return spawnSync("setpriv", ["--groups", "4,27", command, ...rest], { encoding: "utf8" });
}

/** The fields of /proc/self/status of whoever is confined, and what follows it. */
function confined(how: Confinement, ...files: readonly string[]) {
  const { stdout, stderr, status } = run(how, "cat", ["/proc/self/status", ...files]);
  assert.equal(status, 0, stderr);
  return {
    text: stdout,
    field: (name: string) => (new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(stdout)?.[1] ?? "absent").trim(),
  };
}

test("whoever is confined is the one user and group for good, has no capability, gets none, and keeps to its limits", () => {
  const { text, field } = confined(confinement, "/proc/self/limits", "/proc/self/oom_score_adj");
  assert.equal(field("Uid"), [USER, USER, USER, USER].join("\t"));
  assert.equal(field("Gid"), [USER - 1, USER - 1, USER - 1, USER - 1].join("\t"));
  assert.equal(field("Groups"), "");
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) assert.equal(field(set), "0".repeat(16), set);
  assert.equal(field("NoNewPrivs"), "1");
  assert.match(text, /^Max file size +4096 +4096 /m);
  assert.match(text, /^Max core file size +0 +0 /m);
  assert.match(text, /^Max open files +64 +64 /m);
  assert.match(text, /^200\n$/m);
});

test("it gets the groups that it is to have, and no others", () => {
  assert.equal(confined({ ...confinement, groups: [108, 9] }).field("Groups"), "9 108");
});

test("without the right to give privileges up nothing is run, and the reason is said", () => {
  for (const [without, words] of [
    ["setpcap", /^volant-confine: a capability can't be removed from the bounding set: /],
    ["setgid", /^volant-confine: its groups can't be set: /],
    ["setuid", /^volant-confine: its user can't be set: /],
  ] as const) {
    const lacking = ["setpriv", `--inh-caps=-${without}`, `--bounding-set=-${without}`];
    const { stdout, stderr, status } = run(confinement, "echo", ["ran"], lacking);
    assert.deepEqual([stdout, status], ["", 126], without);
    assert.match(stderr, words);
  }
});

test("a program that is not there, or is not its user's to run, is an error of its own", () => {
  const missing = run(confinement, "/nonexistent/qemu");
  assert.deepEqual([missing.status, missing.stdout], [127, ""]);
  assert.match(missing.stderr, /^volant-confine: \/nonexistent\/qemu: No such file or directory/);
  const forbidden = run(confinement, "/proc/self/status");
  assert.deepEqual([forbidden.status, forbidden.stdout], [126, ""]);
  assert.match(forbidden.stderr, /^volant-confine: \/proc\/self\/status: Permission denied/);
});
