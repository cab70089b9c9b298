import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import { checkDescriptors, DESCRIPTOR_RESERVE, fewDescriptors, parseLimit } from "./descriptors.ts";
import { hostLimit, hostLimitInWords } from "./host-limit.ts";

function errno(code: string, path?: string): Error {
  return Object.assign(new Error(`${code}: something`), { code, ...(path === undefined ? {} : { path }) });
}

test("a limit of the host's is found in an error or in its causes, and is no verdict on the VM", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["EMFILE", /file descriptor/],
    ["ENFILE", /files open/],
    ["EAGAIN", /another process/],
    ["ENOMEM", /no memory left/],
    ["ENOSPC", /disk is full \(\/run\/volant\/7\)/],
    ["EDQUOT", /quota/],
  ];
  for (const [code, sentence] of cases) {
    const cause = errno(code, code === "ENOSPC" ? "/run/volant/7" : undefined);
    for (const error of [cause, new VolantError("not_ready", "it can't be started", { cause })]) {
      const limit = hostLimit("web", error);
      assert.equal(limit?.code, "exhausted");
      assert.match(limit.message, /^VM web can't be started yet: /);
      assert.match(limit.message, sentence);
      assert.ok(limit.hint !== undefined && limit.hint !== "");
    }
  }
});

test("a tap that is held names the tap", () => {
  const error = new VolantError("not_ready", "the tap vttap-web can't be opened", { cause: errno("EBUSY") });
  assert.match(hostLimit("web", error)?.message ?? "", /in use.*\(the tap vttap-web can't be opened\)/);
});

test("what no limit is behind stays the verdict that it is", () => {
  for (const error of [errno("ENOENT"), errno("EACCES"), new VolantError("not_ready", "no kernel"), "text", undefined])
    assert.equal(hostLimit("web", error), undefined);
  assert.equal(hostLimitInWords("web", ["qemu: could not load the kernel", "bye"]), undefined);
  // Which memory it wants is the VM's own to say: waiting does not help.
  assert.equal(hostLimitInWords("web", ["cannot set up guest memory 'ram': Cannot allocate memory"]), undefined);
});

test("a limit that a program met says what the program said", () => {
  const limit = hostLimitInWords("web", ["setpriv: fork failed: Resource temporarily unavailable"]);
  assert.equal(limit?.code, "exhausted");
  assert.match(limit.message, /another process: setpriv: fork failed/);
});

test("a VM may be started while more than the reserve is left", () => {
  const open = 700;
  checkDescriptors({ open, limit: open + DESCRIPTOR_RESERVE + 1 });
  checkDescriptors({ open, limit: Number.POSITIVE_INFINITY });
  for (const limit of [open + DESCRIPTOR_RESERVE, open, open - 1]) {
    assert.throws(() => checkDescriptors({ open, limit }), { code: "exhausted" });
  }
});

test("the limit in force is the soft one", () => {
  const line = (soft: string) =>
    `Limit  Soft Limit  Hard Limit  Units\nMax open files            ${soft}    65536    files \n`;
  assert.equal(parseLimit(line("1024")), 1024);
  assert.equal(parseLimit(line("unlimited")), Number.POSITIVE_INFINITY);
  assert.equal(parseLimit("Max processes 1 2"), undefined);
});

test("a limit for few VMs is told with the number of them", () => {
  assert.match(fewDescriptors({ open: 40, limit: 1024 }) ?? "", /1024 files open, which is enough for about 268 VMs/);
  assert.match(fewDescriptors({ open: 40, limit: 64 }) ?? "", /about 0 VMs/);
  for (const limit of [65_536, Number.POSITIVE_INFINITY]) assert.equal(fewDescriptors({ open: 40, limit }), undefined);
});
