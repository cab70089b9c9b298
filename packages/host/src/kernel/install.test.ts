import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, readlink, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tmpdir } from "node:os";
import test, { type TestContext } from "node:test";
import { VolantError } from "@volant/contract";
import { installKernel } from "./install.ts";
import { readKernelRecord } from "./record.ts";

async function workFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "volant-kernel-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** A bzImage that holds no kernel, which is enough to be laid out. */
async function imageFile(folder: string, release: string): Promise<string> {
  const image = Buffer.alloc(2048);
  image[0x1f1] = 1;
  image.write("HdrS", 0x202, "latin1");
  image.writeUInt16LE(0x020f, 0x206);
  image.writeUInt16LE(0x300 - 0x200, 0x20e);
  image.write(`${release} x\0`, 0x300, "latin1");
  const path = join(folder, `vmlinuz-${release}`);
  await writeFile(path, image);
  return path;
}

test("a kernel file is laid out with its record, and the same file again changes nothing", async (t) => {
  const workDir = await workFolder(t);
  const path = await imageFile(workDir, "6.1.0-a");
  const first = await installKernel({ workDir, source: { kind: "file", path } });
  assert.equal(first.changed, true);
  assert.equal(first.elfPath, undefined);
  assert.deepEqual(await readFile(first.bzImagePath), await readFile(path));
  assert.equal((await readKernelRecord(join(workDir, "kernel")))?.release, "6.1.0-a");
  assert.equal((await stat(first.bzImagePath)).mode & 0o777, 0o644);
  const before = await readlink(join(workDir, "kernel"));
  const second = await installKernel({ workDir, source: { kind: "file", path } });
  assert.equal(second.changed, false);
  assert.equal(await readlink(join(workDir, "kernel")), before);
});

test("a newer kernel takes the place of the older one, whose files go", async (t) => {
  const workDir = await workFolder(t);
  await installKernel({ workDir, source: { kind: "file", path: await imageFile(workDir, "6.1.0-a") } });
  const old = await readlink(join(workDir, "kernel"));
  await installKernel({ workDir, source: { kind: "file", path: await imageFile(workDir, "6.1.0-b") } });
  assert.equal((await readKernelRecord(join(workDir, "kernel")))?.release, "6.1.0-b");
  await assert.rejects(stat(join(workDir, old)), { code: "ENOENT" });
});

test("what is no kernel is refused in words, and leaves nothing behind", async (t) => {
  const workDir = await workFolder(t);
  const path = join(workDir, "nonsense");
  await writeFile(path, "nonsense");
  for (const [source, words] of [
    [{ kind: "file", path }, /is no x86 bzImage/],
    [{ kind: "file", path: join(workDir, "absent") }, /does not exist/],
    [{ kind: "file", path: await imageFile(workDir, "6.1.0-a"), modulesDir: join(workDir, "none") }, /modules folder/],
  ] as const) {
    await assert.rejects(installKernel({ workDir, source }), (error) => {
      assert.ok(error instanceof VolantError && error.code === "invalid");
      assert.match(error.message, words);
      return true;
    });
  }
  assert.equal(await readKernelRecord(join(workDir, "kernel")), undefined);
});

test("a folder that someone else put in the kernel's place is left alone", async (t) => {
  const workDir = await workFolder(t);
  await mkdir(join(workDir, "kernel"));
  await writeFile(join(workDir, "kernel", "bzImage"), "mine");
  const path = await imageFile(workDir, "6.1.0-a");
  await assert.rejects(installKernel({ workDir, source: { kind: "file", path } }), { code: "exists" });
  assert.equal(await readFile(join(workDir, "kernel", "bzImage"), "utf8"), "mine");
});
