import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import test, { type TestContext } from "node:test";
import { VolantError } from "@volant/contract";
import { FileImageStore } from "./image-store.ts";
import { encodeNewc, NewcScanner } from "./newc.ts";

function checksumOf(content: Uint8Array | string): string {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}

interface Host {
  readonly workDir: string;
  readonly outside: string;
  open(): Promise<FileImageStore>;
}

/** A work folder with an agent and a kernel that has two modules. */
async function host(t: TestContext, maxImageBytes?: number): Promise<Host> {
  const root = await mkdtemp(join(tmpdir(), "volant-images-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const workDir = join(root, "work");
  const kernel = join(workDir, "kernel");
  await mkdir(join(kernel, "modules"), { recursive: true });
  await mkdir(join(root, "outside"));
  await writeFile(join(root, "agent"), "the agent");
  await writeFile(join(kernel, "bzImage"), "kernel");
  const names = [
    ["virtio_ring", []],
    ["virtio", ["virtio_ring"]],
    ["virtio_mmio", ["virtio"]],
    ["virtio_pci", ["virtio"]],
  ] as const;
  const modules = [];
  for (const [index, [name, depends]] of names.entries()) {
    const file = `modules/00${index}-${name}.ko`;
    await writeFile(join(kernel, file), `module ${name}`);
    modules.push({ name, file, depends, sha256: createHash("sha256").update(name).digest("hex") });
  }
  const record = { schema_version: 1, release: "6.1", bzimage_sha256: "x", modules };
  await writeFile(join(kernel, "kernel.json"), JSON.stringify(record));
  const options = {
    workDir,
    agentPath: join(root, "agent"),
    bzImagePath: join(kernel, "bzImage"),
    vmlinuxPath: join(kernel, "vmlinux"),
    transport: "mmio" as const,
    ...(maxImageBytes === undefined ? {} : { maxImageBytes }),
  };
  return { workDir, outside: join(root, "outside"), open: () => FileImageStore.open(options) };
}

function refused(code: string, words: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof VolantError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, words);
    return true;
  };
}

const plugin = encodeNewc([{ path: "init", kind: "file", mode: 0o755, content: Buffer.from("#!/bin/sh\n") }]);

test("content is kept under its checksum, and twice the same is kept once", async (t) => {
  const { workDir, open } = await host(t);
  const store = await open();
  const checksum = checksumOf(plugin);
  assert.equal(await store.has(checksum), false);
  await store.put(checksum, Readable.from([plugin]));
  await store.put(checksum, Readable.from([plugin]));
  assert.equal(await store.has(checksum), true);
  assert.deepEqual(await readdir(join(workDir, "images/incoming")), []);
  assert.equal((await readdir(join(workDir, "images/blobs"))).length, 1);
});

test("content with another checksum, or too large, is refused and leaves nothing", async (t) => {
  const { workDir, open } = await host(t, 1000);
  const store = await open();
  const wrong = checksumOf("something else");
  await assert.rejects(store.put(wrong, Readable.from([plugin])), refused("checksum_mismatch", /checksum is sha256:/));
  const large = Buffer.alloc(1001);
  await assert.rejects(store.put(checksumOf(large), Readable.from([large])), refused("too_large", /1000 bytes/));
  await assert.rejects(store.has("sha256:../../etc/passwd"), refused("invalid", /no checksum/));
  assert.deepEqual(await readdir(join(workDir, "images/incoming")), []);
  assert.deepEqual(await readdir(join(workDir, "images/blobs")), []);
});

test("a half-written file of a volantd that died is swept at the next start", async (t) => {
  const { workDir, open } = await host(t);
  await open();
  await writeFile(join(workDir, "images/incoming/half"), "half");
  await open();
  assert.deepEqual(await readdir(join(workDir, "images/incoming")), []);
});

test("a file is adopted from volantd's own folder only, through no link that leads outside", async (t) => {
  const { workDir, outside, open } = await host(t);
  const store = await open();
  const checksum = checksumOf(plugin);
  await writeFile(join(outside, "secret"), plugin);
  await symlink(join(outside, "secret"), join(workDir, "link"));
  await symlink(outside, join(workDir, "folder"));
  for (const url of [
    join(outside, "secret"),
    `file://${join(outside, "secret")}`,
    join(workDir, "link"),
    join(workDir, "folder", "secret"),
    join(workDir, "..", "outside", "secret"),
    join(outside, "absent"),
  ]) {
    await assert.rejects(store.adopt({ url }), refused("invalid", /outside volantd's own folder/), url);
  }
  await assert.rejects(store.adopt({ url: join(workDir, "absent") }), refused("invalid", /does not exist/));
  await assert.rejects(store.adopt({ url: workDir + "/kernel" }), refused("invalid", /no file/));
  await assert.rejects(store.adopt({ url: "relative" }), refused("invalid", /neither a file/));
  await assert.rejects(store.adopt({ url: "https://example.org/a" }), refused("not_supported", /does not fetch/));
  assert.deepEqual(await readdir(join(workDir, "images/blobs")), []);

  await writeFile(join(workDir, "plugin.cpio"), plugin);
  const url = `file://${join(workDir, "plugin.cpio")}`;
  const wrong = checksumOf("other");
  await assert.rejects(store.adopt({ url, checksum: wrong }), refused("checksum_mismatch", /checksum/));
  assert.equal(await store.adopt({ url }), checksum);
  assert.equal(await store.adopt({ url: "https://example.org/a", checksum }), checksum);
});

test("a boot image is Volant's archive with the plugin's after it, made once", async (t) => {
  const { open } = await host(t);
  const store = await open();
  const checksum = checksumOf(plugin);
  await assert.rejects(store.bootImage(checksum), refused("not_found", /not in the image store/));
  await store.put(checksum, Readable.from([plugin]));
  const [image, again] = await Promise.all([store.bootImage(checksum), store.bootImage(checksum)]);
  assert.deepEqual(again, image);
  const content = await readFile(image.initrdPath);
  assert.ok(content.subarray(-plugin.length).equals(plugin));
  const paths: string[] = [];
  new NewcScanner(1e9, (entry) => paths.push(entry.path)).push(content);
  assert.deepEqual(paths.slice(0, 8), [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    ".volant",
    ".volant/modules",
    "dev/console",
  ]);
  assert.deepEqual(paths.slice(8), [
    ".volant/modules/000-virtio_ring.ko",
    ".volant/modules/001-virtio.ko",
    ".volant/modules/002-virtio_mmio.ko",
    ".volant/init",
    "init",
  ]);
  const status = await stat(image.initrdPath);
  assert.equal(status.mode & 0o777, 0o444);
  assert.ok(image.unpackedBytes > plugin.length);
  const reopened = await open();
  assert.deepEqual(await reopened.bootImage(checksum), image);
  assert.equal((await stat(image.initrdPath)).ino, status.ino);
});

test("a new agent makes a new boot image, and pruning removes the old one", async (t) => {
  const { workDir, open } = await host(t);
  const store = await open();
  const checksum = checksumOf(plugin);
  await store.put(checksum, Readable.from([plugin]));
  const before = await store.bootImage(checksum);
  await writeFile(join(workDir, "..", "agent"), "a newer agent");
  const after = await store.bootImage(checksum);
  assert.notEqual(after.initrdPath, before.initrdPath);
  await store.prune(new Set([checksum]));
  assert.equal((await readdir(join(workDir, "images/boot"))).length, 2);
  assert.deepEqual(await store.bootImage(checksum), after);
  await store.prune(new Set());
  assert.deepEqual(await readdir(join(workDir, "images/boot")), []);
  assert.deepEqual(await readdir(join(workDir, "images/blobs")), []);
});

test("what is missing is named, with the command that brings it", async (t) => {
  const { workDir, open } = await host(t);
  const store = await open();
  const nonsense = Buffer.from("no archive at all");
  await store.put(checksumOf(nonsense), Readable.from([nonsense]));
  await assert.rejects(store.bootImage(checksumOf(nonsense)), refused("invalid", /neither a cpio archive/));
  await rm(join(workDir, "..", "agent"));
  await assert.rejects(store.bootImage(checksumOf(plugin)), refused("not_ready", /guest agent is not there/));
  await rm(join(workDir, "kernel"), { recursive: true });
  await assert.rejects(store.kernel(), (error) => {
    assert.ok(error instanceof VolantError && error.code === "not_ready");
    assert.equal(error.hint, "run: volar kernel install");
    return true;
  });
});

test("the uncompressed kernel is used only where it lies beside the image it was cut out of", async (t) => {
  const { workDir, open } = await host(t);
  const store = await open();
  assert.deepEqual(await store.kernel(), { bzImagePath: join(workDir, "kernel/bzImage") });
  await writeFile(join(workDir, "kernel/vmlinux"), "elf");
  assert.equal((await store.kernel()).elfPath, join(workDir, "kernel/vmlinux"));
});
