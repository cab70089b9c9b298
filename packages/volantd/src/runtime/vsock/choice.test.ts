import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { chooseDataTransport } from "./choice.ts";

const directory = mkdtempSync(join(tmpdir(), "vsock-choice-"));
chmodSync(directory, 0o755);
after(() => rmSync(directory, { recursive: true, force: true }));

function program(folder: string, output: string, mode = 0o755): string {
  mkdirSync(join(directory, folder));
  const path = join(directory, folder, "vhost-device-vsock");
  writeFileSync(path, `#!/bin/sh\n${output}\n`, { mode });
  return path;
}

const good = program("good", "echo vhost-device-vsock 0.3.0");

test("off looks for nothing, and says so", async () => {
  assert.deepEqual(await chooseDataTransport({ wanted: "off" }, join(directory, "good")), {
    transport: "virtio-serial",
    wanted: "off",
    reason: "VOLANT_VSOCK is off",
  });
});

test("the program is found on the search path, or where the setting says", async () => {
  for (const choice of [
    await chooseDataTransport({ wanted: "on" }, `${join(directory, "none")}:${join(directory, "good")}`),
    await chooseDataTransport({ wanted: "on", program: good }, ""),
  ]) {
    assert.deepEqual(choice, { transport: "vsock", wanted: "on", program: good, version: "0.3.0" });
  }
});

test("without a program that works, auto gives the reason and on refuses", async () => {
  const closedFolder = program("closed", "echo vhost-device-vsock 0.3.0");
  chmodSync(join(directory, "closed"), 0o700);
  const cases: [path: string, reason: RegExp][] = [
    [join(directory, "absent/vhost-device-vsock"), /there is no vhost-device-vsock at /],
    [closedFolder, /closed is closed to others$/],
    [program("private", "echo vhost-device-vsock 0.3.0", 0o700), /vhost-device-vsock is closed to others$/],
    [program("broken", "exit 1"), /does not run$/],
    [program("other", "echo something else"), /does not say its version$/],
  ];
  for (const [path, reason] of cases) {
    const choice = await chooseDataTransport({ wanted: "auto", program: path }, "");
    assert.equal(choice.transport, "virtio-serial");
    assert.match("reason" in choice ? choice.reason : "", reason);
    await assert.rejects(chooseDataTransport({ wanted: "on", program: path }, ""), { code: "not_ready" });
  }
  const none = await chooseDataTransport({ wanted: "auto" }, "");
  assert.match("reason" in none ? none.reason : "", /on the search path$/);
});

test("a setting that names no such program is refused by its name", async () => {
  for (const wrong of ["vhost-device-vsock", "/bin/true"]) {
    await assert.rejects(chooseDataTransport({ wanted: "auto", program: wrong }, ""), {
      code: "invalid",
      message: /^VOLANT_VHOST_DEVICE_VSOCK is /,
    });
  }
});
