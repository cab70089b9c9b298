import assert from "node:assert/strict";
import test from "node:test";
import { splitWait } from "./commands/vms/wait-flags.ts";
import { createRequest } from "./commands/vms/create-request.ts";
import { localPath } from "./plugin-files.ts";
import { firstOperand } from "./program.ts";
import { forEachName } from "./several.ts";
import { formatTable } from "./table.ts";
import { durationMs, keyValue, memoryMib, wholeNumber } from "./values.ts";

test("memory is MiB, or has a unit", () => {
  assert.deepEqual(["512", "512M", "512MiB", "2G", "2gb"].map(memoryMib), [512, 512, 512, 2048, 2048]);
  for (const text of ["", "1.5G", "-1", "1T", "x"]) assert.throws(() => memoryMib(text), text);
});

test("a time is seconds, or has a unit; none is no time, and too long is none", () => {
  assert.deepEqual(["300", "1.5", "50ms", "2m", "1h"].map(durationMs), [300_000, 1500, 50, 120_000, 3_600_000]);
  for (const text of ["0", "", "soon", "-1", "1d", "600h"]) assert.throws(() => durationMs(text), text);
});

test("a whole number keeps to its minimum", () => {
  assert.equal(wholeNumber(1)("7"), 7);
  for (const text of ["0", "1.5", "1e3", " 1", ""]) assert.throws(() => wholeNumber(1)(text), text);
});

test("an environment variable may hold equal signs and be empty, but needs a name", () => {
  assert.deepEqual(keyValue("B=", keyValue("A=x=y", undefined)), { A: "x=y", B: "" });
  assert.throws(() => keyValue("=x", undefined));
});

test("--wait=<time> becomes two flags, but not after --", () => {
  assert.deepEqual(splitWait(["a", "--wait=5m", "--", "--wait=1"]), [
    "a",
    "--wait",
    "--wait-timeout=5m",
    "--",
    "--wait=1",
  ]);
  assert.deepEqual(splitWait(["--wait", "web"]), ["--wait", "web"]);
});

test("the part of the program is found wherever global flags stand", () => {
  assert.equal(firstOperand(["--api", "vms", "-a", "x", "--output=json", "plugins", "list"]), "plugins");
  assert.equal(firstOperand(["help", "vms"]), "vms");
  assert.equal(firstOperand(["--version"]), undefined);
});

test("a request holds what was given and nothing else; flags win over the file, field by field", () => {
  assert.deepEqual(createRequest("a", {}), { name: "a" });
  const file = { env: { A: "1", B: "1" }, network: { mode: "dhcp", bridge: "br0" }, metadata: { x: 1 } };
  assert.deepEqual(
    createRequest("a", { env: { A: "2" }, network: "bridged", cpu: 2, device: ["0000:01:00.0"] }, file),
    {
      name: "a",
      cpu_cores: 2,
      config: {
        env: { A: "2", B: "1" },
        network: { mode: "bridged", bridge: "br0" },
        metadata: { x: 1 },
        devices: { pci_passthrough: ["0000:01:00.0"] },
      },
    },
  );
  assert.throws(() => createRequest("a", {}, []), /must hold a JSON object/);
  assert.throws(() => createRequest("a", { initramfsChecksum: "x" }), /needs --initramfs/);
});

test("a manifest's paths are resolved against its folder, addresses of the web are left alone", () => {
  assert.equal(localPath("a/b.cpio", "/plugins/x"), "/plugins/x/a/b.cpio");
  assert.equal(localPath("/abs", "/plugins/x"), "/abs");
  assert.equal(localPath("file:///abs%20y", "/plugins/x"), "/abs y");
  assert.equal(localPath("https://example/x", "/plugins/x"), undefined);
});

test("columns are as wide as their widest cell, and no guest's text moves the cursor", () => {
  assert.equal(
    formatTable([
      ["A", "B"],
      ["long", "x\u001b[2Jy\n"],
    ]),
    "A     B\nlong  x\\x1b[2Jy\\x0a\n",
  );
});

test("each name is done once, in any order told in the given one; failures do not stop the others", async () => {
  const asked: string[] = [];
  const outcome = await forEachName(["a", "b", "a", "c"], async (name) => {
    asked.push(name);
    if (name === "b") throw new Error("b");
  });
  assert.deepEqual(asked, ["a", "b", "c"]);
  assert.deepEqual([outcome.done, outcome.failures.length], [["a", "c"], 1]);
  await assert.rejects(
    forEachName(["b"], () => Promise.reject(new Error("b"))),
    /^Error: b$/,
  );
});
