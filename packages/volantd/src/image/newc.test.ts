import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { ArchiveError, encodeNewc, NewcScanner, type NewcEntry, type ScannedEntry } from "./newc.ts";
import { scanInitramfs, type ScanResult } from "./scan.ts";

const MIB = 1024 * 1024;

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "volant-newc-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function scanBytes(bytes: Uint8Array, chunk = 1000): ScannedEntry[] {
  const entries: ScannedEntry[] = [];
  const scanner = new NewcScanner(100 * MIB, (entry) => entries.push(entry));
  for (let at = 0; at < bytes.length; at += chunk) {
    const piece = Buffer.from(bytes.subarray(at, at + chunk));
    if (scanner.push(piece) < piece.length) throw new ArchiveError("holds something else");
  }
  scanner.end();
  return entries;
}

async function scanFile(folder: string, content: Uint8Array): Promise<ScanResult> {
  const path = join(folder, "archive");
  writeFileSync(path, content);
  await using file = await open(path);
  return await scanInitramfs(file, 100 * MIB);
}

const name = fc.stringMatching(/^[a-z][a-z0-9_-]{0,12}$/);
const files = fc
  .dictionary(name, fc.uint8Array({ maxLength: 300 }), { minKeys: 1, maxKeys: 8, noNullPrototype: true })
  .map((all) =>
    Object.entries(all).map(([path, content]): NewcEntry => ({ path, kind: "file", mode: 0o640, content })),
  );

test("what the writer writes, the scanner reads, however the bytes are cut", () => {
  fc.assert(
    fc.property(files, fc.integer({ min: 1, max: 700 }), (entries, chunk) => {
      const archive = encodeNewc(entries);
      assert.equal(archive.length % 4, 0);
      const scanned = scanBytes(Buffer.concat([archive, Buffer.alloc(8), archive]), chunk);
      const expected = entries.map(({ path, content }) => ({ path, type: 0o100000, bytes: content?.length }));
      assert.deepEqual(scanned, [...expected, ...expected]);
    }),
  );
});

test("busybox cpio unpacks what the writer writes, and the scanner reads what busybox packs", async (t) => {
  const folder = scratch(t);
  for (const [index, entries] of fc.sample(files, { numRuns: 10, seed: 7 }).entries()) {
    const out = join(folder, `out-${index}`);
    mkdirSync(out);
    const links: NewcEntry[] = [{ path: "DIR", kind: "directory", mode: 0o755 }];
    links.push({ path: "DIR/link", kind: "symlink", mode: 0o777, content: Buffer.from("../target") });
    const archive = encodeNewc([...entries, ...links]);
    execFileSync("busybox", ["cpio", "-i"], { input: archive, cwd: out, stdio: ["pipe", "ignore", "ignore"] });
    for (const { path, content } of entries)
      assert.deepEqual(readFileSync(join(out, path)), Buffer.from(content ?? []));
    assert.equal(readlinkSync(join(out, "DIR/link")), "../target");

    const list = [...entries.map(({ path }) => path), "DIR", "DIR/link"].join("\n");
    const packed = execFileSync("busybox", ["cpio", "-o", "-H", "newc"], {
      input: list,
      cwd: out,
      stdio: ["pipe", "pipe", "ignore"],
    });
    assert.deepEqual(
      scanBytes(packed)
        .map((entry) => entry.path)
        .toSorted(),
      list.split("\n").toSorted(),
    );
    assert.equal((await scanFile(folder, packed)).entries, entries.length + 2);
  }
});

test("compressed archives, and plain ones before and after them, add up", async (t) => {
  const folder = scratch(t);
  const archive = encodeNewc([{ path: "a", kind: "file", mode: 0o644, content: Buffer.alloc(5000, 1) }]);
  const one = (await scanFile(folder, archive)).unpackedBytes;
  assert.equal(one, 8192 + 1024);
  const gzip = gzipSync(archive);
  const aligned = Buffer.concat([gzip, Buffer.alloc(4 + ((4 - (gzip.length % 4)) % 4))]);
  for (const [content, count] of [
    [gzip, 1],
    [zstdCompressSync(archive), 1],
    [Buffer.concat([archive, gzip]), 2],
    [Buffer.concat([gzip, gzip]), 2],
    [Buffer.concat([gzip, Buffer.alloc(100)]), 1],
    [Buffer.concat([archive, Buffer.alloc(512), aligned, archive]), 3],
  ] as const) {
    assert.deepEqual(await scanFile(folder, content), { unpackedBytes: count * one, entries: count });
  }
});

test("what the kernel could not unpack is refused in words", async (t) => {
  const folder = scratch(t);
  const archive = encodeNewc([{ path: "a", kind: "file", mode: 0o644, content: Buffer.alloc(5000) }]);
  const inside = (path: string): Buffer => encodeNewc([{ path, kind: "file", mode: 0o644 }]);
  for (const [content, words] of [
    [Buffer.alloc(0), /is empty/],
    [Buffer.alloc(10_000), /is empty/],
    [Buffer.from("hello, I am a text file"), /neither a cpio archive/],
    [Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 1, 2]), /neither a cpio archive/],
    [archive.subarray(0, 3000), /cut off/],
    [gzipSync(archive).subarray(0, 40), /does not unpack/],
    [gzipSync(archive.subarray(0, 3000)), /cut off/],
    [gzipSync(Buffer.from("not an archive")), /no cpio entry/],
    [Buffer.concat([archive, Buffer.alloc(2), archive]), /multiple of 4/],
    [inside("./.volant/init"), /Volant's own/],
    [inside("/.volant//modules/000-evil.ko"), /Volant's own/],
  ] as const) {
    await assert.rejects(scanFile(folder, content), (error) => {
      assert.ok(error instanceof ArchiveError, String(error));
      assert.match(error.message, words);
      return true;
    });
  }
});

test("an archive that unpacks to more than allowed is refused before it is unpacked", async (t) => {
  const folder = scratch(t);
  const bomb = gzipSync(Buffer.alloc(80 * MIB));
  await assert.rejects(scanFile(folder, bomb), /zero bytes for too long/);
  const huge = encodeNewc([{ path: "a", kind: "file", mode: 0o644 }]);
  huge.write("ffffffff", 6 + 6 * 8, "latin1");
  await assert.rejects(scanFile(folder, huge), /unpacks to more than 100 MiB/);
});

test("hostile bytes end in ArchiveError or in a result, never otherwise", () => {
  const valid = encodeNewc([
    { path: "dir", kind: "directory", mode: 0o755 },
    { path: "dir/file", kind: "file", mode: 0o644, content: Buffer.from("content") },
  ]);
  const mutation = fc.array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(
      fc.oneof(mutation, fc.uint8Array({ maxLength: 400 })),
      fc.integer({ min: 1, max: 400 }),
      (input, chunk) => {
        const bytes = input instanceof Uint8Array ? input : Buffer.from(valid);
        if (!(input instanceof Uint8Array)) for (const [position, value] of input) bytes[position] = value;
        try {
          scanBytes(bytes, chunk);
        } catch (error) {
          assert.ok(error instanceof ArchiveError, String(error));
        }
      },
    ),
    { numRuns: 2000 },
  );
});
