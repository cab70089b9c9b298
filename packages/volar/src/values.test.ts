import assert from "node:assert/strict";
import test from "node:test";
import type { Manifest } from "@volant/contract";
import { splitWait } from "./commands/vms/wait-flags.ts";
import { createRequest } from "./commands/vms/create-request.ts";
import { processIo } from "./io.ts";
import { localPath, openApiAddress, type Origin } from "./plugin-files.ts";
import { createProgram, operandsOf } from "./program.ts";
import { forEachName } from "./several.ts";
import { formatTable } from "./table.ts";
import { durationMs, keyValue, memoryMib, pastTime, wholeNumber } from "./values.ts";

test("memory is MiB, or has a unit", () => {
  assert.deepEqual(["512", "512M", "512MiB", "2G", "2gb"].map(memoryMib), [512, 512, 512, 2048, 2048]);
  for (const text of ["", "1.5G", "-1", "1T", "x"]) assert.throws(() => memoryMib(text), text);
});

test("a time is seconds, or has a unit; none is no time, and too long is none", () => {
  assert.deepEqual(["300", "1.5", "50ms", "2m", "1h"].map(durationMs), [300_000, 1500, 50, 120_000, 3_600_000]);
  for (const text of ["0", "", "soon", "-1", "1d", "600h"]) assert.throws(() => durationMs(text), text);
});

test("a time that has passed is so long ago, or a time; none else is taken", () => {
  const now = Date.UTC(2026, 0, 31);
  const iso = (text: string) => pastTime(text, undefined, now).toISOString();
  assert.deepEqual(["90s", "1.5h", "2d"].map(iso), [
    "2026-01-30T23:58:30.000Z",
    "2026-01-30T22:30:00.000Z",
    "2026-01-29T00:00:00.000Z",
  ]);
  assert.deepEqual(["2026-01-01", "2026-01-01T08:00:00Z", "2026-01-01T08:00:00.5+02:00"].map(iso), [
    "2026-01-01T00:00:00.000Z",
    "2026-01-01T08:00:00.000Z",
    "2026-01-01T06:00:00.500Z",
  ]);
  for (const text of ["", "1", "yesterday", "5y", "-1h", "2026-13-01", "2026-01-01T25:00:00Z", "999999999d"]) {
    assert.throws(() => pastTime(text, undefined, now), text);
  }
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

test("the part of the program and its verb are found wherever global flags stand", () => {
  assert.deepEqual(operandsOf(["--api", "vms", "-a", "x", "--output=json", "plugins", "list"]), ["plugins", "list"]);
  assert.deepEqual(operandsOf(["help", "vms"]), ["vms"]);
  assert.deepEqual(operandsOf(["vms", "-q", "get", "a"]), ["vms", "get", "a"]);
  assert.deepEqual(operandsOf(["--version"]), []);
});

test("of vms the one verb is loaded that is asked for, and all where help or a suggestion needs them", async () => {
  const verbs = async (...words: string[]) => {
    const program = await createProgram(words, processIo());
    return program.commands.find((part) => part.name() === "vms")?.commands.map((command) => command.name()) ?? [];
  };
  assert.deepEqual(await verbs("vms", "list", "--status", "get"), ["list"]);
  assert.deepEqual(await verbs("--output", "json", "vms", "config", "get", "a"), ["config"]);
  for (const words of [["vms"], ["help", "vms"], ["vms", "lst"], ["vms", "toString"], ["vms", "--help"]]) {
    assert.ok((await verbs(...words)).length > 15, words.join(" "));
  }
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
  assert.deepEqual(createRequest("a", { allowSpoofing: true }, { policy: { anti_spoof: true } }).config, {
    policy: { anti_spoof: false },
  });
  assert.throws(() => createRequest("a", {}, []), /must hold a JSON object/);
  assert.throws(() => createRequest("a", { initramfsChecksum: "x" }), /needs --initramfs/);
});

test("every flag of vms create stands in the request that is sent: what can't be honoured is volantd's to refuse", () => {
  const request = createRequest("a", {
    plugin: "p",
    runtime: "r",
    cpu: 2,
    memory: 256,
    kernelCmdline: "quiet",
    kernel: "/boot/other",
    initramfs: "/x.cpio",
    initramfsChecksum: "sha256:0",
    apiHost: "10.0.0.1",
    apiPort: "8080",
    device: ["0000:01:00.0"],
    deviceAllowlist: ["10de:*"],
    network: "vsock",
  });
  assert.deepEqual(request, {
    name: "a",
    plugin: "p",
    runtime: "r",
    cpu_cores: 2,
    memory_mb: 256,
    kernel_cmdline: "quiet",
    api_host: "10.0.0.1",
    api_port: "8080",
    config: {
      kernel_override: "/boot/other",
      initramfs: { url: "/x.cpio", checksum: "sha256:0" },
      devices: { pci_passthrough: ["0000:01:00.0"], allowlist: ["10de:*"] },
      network: { mode: "vsock" },
    },
  });
});

test("a manifest's paths are resolved against its folder, addresses of the web are left alone", () => {
  assert.equal(localPath("a/b.cpio", "/plugins/x"), "/plugins/x/a/b.cpio");
  assert.equal(localPath("/abs", "/plugins/x"), "/abs");
  assert.equal(localPath("file:///abs%20y", "/plugins/x"), "/abs y");
  assert.equal(localPath("https://example/x", "/plugins/x"), undefined);
});

test("a manifest's OpenAPI document is a file beside it, unless it is a path of the workload, an address or the document", () => {
  const address = (openapi: string | undefined, origin: Origin = { folder: "/plugins/hello" }) =>
    openApiAddress((openapi === undefined ? {} : { openapi }) as Manifest, origin);
  assert.equal(address("openapi.json"), "file:///plugins/hello/openapi.json");
  assert.equal(address("../x.json"), "file:///plugins/x.json");
  assert.equal(address("file:///x.json"), "file:///x.json");
  const web = { webAddress: "https://plugins.example/hello/manifest.json" };
  assert.equal(address("openapi.json", web), "https://plugins.example/hello/openapi.json");
  assert.throws(() => address("file:///etc/passwd", web), { code: "invalid" });
  for (const other of [undefined, "", "/openapi", "http://127.0.0.1/x", ' {"openapi":"3.1.0"}']) {
    assert.equal(address(other), undefined, other);
  }
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
