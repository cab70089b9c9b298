/** Artifacts on the real store and the real image store. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, existsSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import test, { after } from "node:test";
import { FileImageStore } from "../image/image-store.ts";
import { SqliteStore } from "../store/sqlite-store.ts";
import { managed, manifest } from "../testing/engine-bench.ts";
import { ArtifactService } from "./artifact-service.ts";
import { PluginService } from "./plugin-service.ts";

const directory = mkdtempSync(join(tmpdir(), "artifacts-"));
after(() => rmSync(directory, { recursive: true, force: true }));
const checksumOf = (bytes: Buffer) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const file = Buffer.from("a disk");
const checksum = checksumOf(file);

const store = SqliteStore.open({
  path: join(directory, "state.db"),
  now: () => new Date(),
  newInstallation: () => "abcdef01",
});
after(() => store.close());
const images = await FileImageStore.open({
  workDir: directory,
  agentPath: join(directory, "agent"),
  bzImagePath: join(directory, "bzImage"),
  vmlinuxPath: join(directory, "vmlinux"),
  transport: "pci",
});
let monotonicMs = 0;
const log = { info: () => {}, warn: () => {}, error: () => {} };
const plugins = new PluginService({ store, images, managed, log, monotonicMs: () => monotonicMs });
const artifacts = new ArtifactService({ store, images, prune: () => plugins.prune() });
store.createPlugin(manifest, true);

test("an artifact is a file that was handed over: kept, shown with its size and place, and replaced by one of its name", async () => {
  await images.put(checksum, Readable.from([file]));
  const made = await artifacts.create("hello", { artifact_name: "disk", kind: "disk", checksum, format: "raw" });
  assert.deepEqual([made.version, made.size_bytes, made.source_url], ["1", file.length, ""]);
  assert.ok(existsSync(made.local_path));
  const again = await artifacts.create("hello", {
    artifact_name: "disk",
    kind: "root",
    checksum,
    source_url: "https://example.net/disk",
  });
  assert.deepEqual([again.kind, again.created_at], ["root", made.created_at]);
  const all = (await artifacts.list("hello")).map(({ artifact_name: name, kind }) => [name, kind]);
  assert.deepEqual(all, [
    ["initramfs", "initramfs"],
    ["disk", "root"],
  ]);
  assert.equal((await artifacts.get("hello", "disk")).kind, "root");
});

test("an artifact of another version is another one, and of several the one written last is meant", async () => {
  await artifacts.create("hello", { artifact_name: "disk", kind: "newer", checksum, version: "2" });
  assert.equal((await artifacts.get("hello", "disk")).kind, "newer");
  assert.equal((await artifacts.get("hello", "disk", "1")).kind, "root");
  const second = (await artifacts.list("hello", "2")).map(({ kind }) => kind);
  assert.deepEqual(second, ["newer"], "the manifest's file is version 1's");
  await assert.rejects(artifacts.get("hello", "disk", "3"), { code: "not_found" });
});

test("a file that is not here, is not what it should be, lies elsewhere or is the manifest's is refused", async () => {
  const create = (fields: object) => artifacts.create("hello", { artifact_name: "x", kind: "disk", ...fields });
  await assert.rejects(create({}), { code: "invalid" });
  await assert.rejects(create({ checksum: `sha256:${"0".repeat(64)}` }), { code: "not_found" });
  await assert.rejects(create({ checksum, size_bytes: 1 }), { code: "invalid" });
  await assert.rejects(create({ local_path: "/etc/passwd" }), { code: "invalid" });
  await assert.rejects(create({ source_url: "http://169.254.169.254/x" }), { code: "not_supported" });
  await assert.rejects(create({ artifact_name: "initramfs", checksum }), { code: "exists" });
  await assert.rejects(artifacts.create("none", { artifact_name: "x", kind: "disk", checksum }), { code: "not_found" });
  await assert.rejects(artifacts.delete("hello", { artifact_name: "initramfs" }), { code: "in_use" });
  await assert.rejects(artifacts.delete("hello", { artifact_name: "x" }), { code: "not_found" });
});

test("a file in volantd's own folder is taken in", async () => {
  const path = join(directory, "own.raw");
  writeFileSync(path, "own");
  const made = await artifacts.create("hello", { artifact_name: "own", kind: "disk", local_path: path });
  assert.deepEqual([made.checksum, made.size_bytes], [checksumOf(Buffer.from("own")), 3]);
});

test("a file stays for as long as one artifact names it, and goes with the last one, or with the plugin", async () => {
  const { local_path: path } = await artifacts.get("hello", "disk");
  const { local_path: own } = await artifacts.get("hello", "own");
  await artifacts.delete("hello", { version: "1", artifact_name: "disk" });
  assert.ok(existsSync(path));
  await artifacts.delete("hello", { version: "2" });
  assert.ok(!existsSync(path));
  assert.ok(existsSync(own));
  monotonicMs += 3_600_000;
  await plugins.remove("hello");
  assert.ok(!existsSync(own));
  assert.deepEqual(store.artifacts.list("hello"), []);
});
