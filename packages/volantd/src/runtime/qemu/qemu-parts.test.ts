import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import fc from "fast-check";
import { checkRuntimeDir, MAX_SOCKET_PATH_BYTES, vmPaths } from "../vm-folder.ts";
import { describeExit, parseExitRecord } from "./exit-report.ts";
import { findQemu, parseCpuInfo, parseQemuVersion } from "./host-facts.ts";
import { vmIdentity } from "./identity.ts";
import { encodeQmpCommand, MAX_LINE_BYTES, QmpDecoder, QmpError, type QmpMessage } from "./qmp-codec.ts";

function decode(bytes: Buffer, chunk: number): QmpMessage[] {
  const decoder = new QmpDecoder();
  const messages: QmpMessage[] = [];
  for (let at = 0; at < bytes.length; at += chunk) messages.push(...decoder.push(bytes.subarray(at, at + chunk)));
  return messages;
}

test("QMP messages come out of the stream however it is cut", () => {
  const lines = [
    '{"QMP": {"version": {}, "capabilities": ["oob"]}}',
    '{"return": {}, "id": 1}',
    '{"id": 2, "error": {"class": "GenericError", "desc": "no"}}',
    '{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}',
    '{"event": "RESUME"}',
  ];
  const bytes = Buffer.from(lines.map((line) => `${line}\r\n`).join(""));
  fc.assert(
    fc.property(fc.integer({ min: 1, max: bytes.length }), (chunk) => {
      assert.deepEqual(decode(bytes, chunk), [
        { kind: "greeting" },
        { kind: "return", id: 1, value: {} },
        { kind: "error", id: 2, errorClass: "GenericError", description: "no" },
        { kind: "event", event: "SHUTDOWN", data: { guest: true, reason: "guest-shutdown" } },
        { kind: "event", event: "RESUME", data: {} },
      ]);
    }),
  );
  assert.deepEqual(JSON.parse(encodeQmpCommand(3, "quit")), { execute: "quit", id: 3 });
});

test("hostile QMP bytes end in QmpError or in messages, in bounded memory", () => {
  const json = fc.json().map((text) => Buffer.from(`${text}\n`));
  fc.assert(
    fc.property(fc.oneof(json, fc.uint8Array({ maxLength: 300 }).map(Buffer.from)), (bytes) => {
      try {
        decode(bytes, 7);
      } catch (error) {
        assert.ok(error instanceof QmpError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
  assert.throws(() => decode(Buffer.alloc(MAX_LINE_BYTES + 2, "x"), 1000), QmpError);
  assert.throws(() => decode(Buffer.from(`${" ".repeat(MAX_LINE_BYTES + 2)}\n`), MAX_LINE_BYTES * 2), QmpError);
});

test("KVM needs vmx or svm, and the counter's rate is believed inside a virtual machine only", () => {
  const info = (flags: string): string => `processor\t: 0\ncpu MHz\t\t: 2445.406\nflags\t\t: fpu ${flags}\n`;
  assert.deepEqual(parseCpuInfo(info("hypervisor")), { virtualization: false, tscKhz: 2_445_406 });
  assert.deepEqual(parseCpuInfo(info("svm hypervisor")), { virtualization: true, tscKhz: 2_445_406 });
  assert.deepEqual(parseCpuInfo(info("vmx")), { virtualization: true });
  assert.deepEqual(parseCpuInfo(""), { virtualization: false });
});

test("a hypervisor that is not there, or not supported, is named with what to do", async () => {
  const error = await findQemu(undefined, "/nonexistent").catch((caught: unknown) => caught);
  assert.ok(error instanceof VolantError && error.code === "not_ready");
  assert.equal(error.hint, "apt-get install qemu-system-x86");
  await assert.rejects(findQemu("firecracker", ""), { code: "not_supported" });
  await assert.rejects(findQemu("bin/qemu", ""), { code: "invalid" });
  await assert.rejects(findQemu("/nonexistent/qemu", ""), { code: "not_ready" });
  assert.equal(parseQemuVersion("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright"), "7.2.22");
  assert.equal(parseQemuVersion("something else"), undefined);
});

test("each VM's hypervisor has a user of its own, in a range that nobody else uses", () => {
  assert.deepEqual(vmIdentity(7), { uid: 1_900_000_007, gid: 1_900_000_007 });
  assert.ok(vmIdentity(247_000_000).uid < 2_147_352_576);
  assert.throws(() => vmIdentity(247_000_001), { code: "exhausted" });
  assert.throws(() => vmIdentity(0), /no VM id/);
});

test("a runtime folder is taken exactly as long as its longest socket path fits", () => {
  const room = MAX_SOCKET_PATH_BYTES - `/${vmPaths("", 999_999_999).control}`.length - 1;
  const path = `/${"a".repeat(room)}`;
  checkRuntimeDir(path);
  assert.throws(() => checkRuntimeDir(`${path}a`), /too long a path for the sockets in it, by 1 bytes/);
});

test("an end is told in a sentence: by the guest, by a panic, by a signal, by QEMU's own words", () => {
  const generation = 1;
  const report = (record: object | undefined, console: string[] = [], said: string[] = []): [string, string] => {
    const { cause, message } = describeExit(
      record === undefined ? undefined : { generation, ...record },
      console,
      said,
    );
    return [cause, message];
  };
  assert.deepEqual(report({ shutdownReason: "guest-shutdown" }), ["guest-shutdown", "the guest powered off"]);
  assert.deepEqual(report({ shutdownReason: "guest-reset" }), ["guest-reset", "the guest restarted itself"]);
  const panic = ["[    1.0] Kernel panic - not syncing: Attempted to kill init!", "[ 1.1] CPU: 0"];
  assert.deepEqual(report({ shutdownReason: "guest-reset" }, panic), [
    "guest-panic",
    "the guest's kernel panicked: Attempted to kill init!",
  ]);
  assert.deepEqual(report({ signal: "SIGKILL" }), ["host-signal", "the hypervisor was ended by SIGKILL"]);
  assert.deepEqual(report({ exitCode: 1 }, [], ["qemu: no memory"]), [
    "error",
    "the hypervisor failed: qemu: no memory",
  ]);
  assert.deepEqual(report({ exitCode: 1 }), ["error", "the hypervisor failed with status 1"]);
  assert.deepEqual(report(undefined), ["unknown", "the hypervisor ended while nobody was looking"]);
});

test("the record of another generation, or a damaged one, tells nothing", () => {
  assert.deepEqual(parseExitRecord('{"generation":2,"signal":"SIGKILL"}', 2), { generation: 2, signal: "SIGKILL" });
  assert.equal(parseExitRecord('{"generation":2}', 3), undefined);
  assert.equal(parseExitRecord("{", 3), undefined);
  assert.deepEqual(parseExitRecord('{"generation":2,"exitCode":"x"}', 2), { generation: 2 });
});
