import assert from "node:assert/strict";
import test from "node:test";
import { findBackendMark, findProcessMark } from "../process-mark.ts";
import { confinedCommand } from "../qemu/argv.ts";
import { backendArguments } from "./argv.ts";

const mark = { installation: "0123abcd", vmId: 7, generation: 3 };

test("the group's name is the mark, found in the whole chain's arguments, and never taken for a hypervisor's", () => {
  const args = backendArguments(mark, 12);
  assert.deepEqual(args, ["--vm", "guest-cid=12,socket=vu,uds-path=vs,groups=volant:0123abcd:7:3"]);
  const confinement = { confiner: "/x/volant-confine", uid: 5, gid: 6, groups: [], maxFileBytes: 100, maxOpenFiles: 9 };
  const command = confinedCommand(confinement, "/usr/bin/vhost-device-vsock", args);
  const cmdline = command.join("\0");
  assert.match(command.join(" "), / --open-files 9 /);
  assert.deepEqual(findBackendMark(cmdline), mark);
  assert.equal(findProcessMark(cmdline), undefined);
  assert.equal(findBackendMark("-name\0guest=volant:0123abcd:7:3"), undefined);
});

test("a context id that is not a guest's is refused", () => {
  for (const cid of [0, 1, 2, 0xffff_ffff, 3.5, Number.NaN]) {
    assert.throws(() => backendArguments(mark, cid), { code: "invalid" }, String(cid));
  }
});
