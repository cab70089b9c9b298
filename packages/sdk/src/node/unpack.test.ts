/** What a hostile guest may try when a user copies from it, and what an honest one may expect. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { buffer } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { openSource, packSource } from "./pack.ts";
import { checksumOf, encodeTarEntry, paddingOf, TAR_END, type TarKind } from "./tar/header.ts";
import { componentsBelow, staysWithin, unpack } from "./unpack.ts";

type Part = readonly [name: string, kind: TarKind, content?: string, mode?: number];

function encode(parts: readonly Part[]): Buffer[] {
  return parts.flatMap(([name, kind, content = "", mode = 0o644]) => {
    const body = Buffer.from(kind === "symlink" ? "" : content);
    const target = kind === "symlink" ? content : "";
    return [
      Buffer.from(encodeTarEntry({ name, kind, mode, mtime: 0, size: body.length, target })),
      body,
      Buffer.alloc(paddingOf(body.length)),
    ];
  });
}

async function* archive(...parts: Part[]): AsyncGenerator<Uint8Array> {
  yield* encode(parts);
  yield TAR_END;
}

/** Two folders: what lies outside must never change. */
function folders(context: TestContext): { readonly inside: string; readonly outside: string; names(): string[] } {
  const base = mkdtempSync(join(tmpdir(), "unpack-"));
  context.after(() => rmSync(base, { recursive: true, force: true }));
  const [inside, outside] = [join(base, "inside"), join(base, "outside")];
  for (const folder of [inside, outside]) mkdirSync(folder);
  writeFileSync(join(outside, "precious"), "precious");
  return { inside, outside, names: () => readdirSync(inside, { recursive: true }).map(String).toSorted() };
}

function assertUntouched(outside: string): void {
  assert.deepEqual(readdirSync(outside), ["precious"]);
  assert.equal(readFileSync(join(outside, "precious"), "utf8"), "precious");
  assert.deepEqual(readdirSync(dirname(outside)).toSorted(), ["inside", "outside"]);
}

for (const name of ["../outside/x", "a/../../outside/x", "/etc/x", "..", "a//x", "a/./x", ""]) {
  test(`the name ${JSON.stringify(name)} is refused, and nothing is written`, async (context) => {
    const { inside, outside, names } = folders(context);
    await assert.rejects(unpack(archive([name, "file", "x"]), inside, { name: "copy" }), { code: "guest_unreachable" });
    assert.deepEqual(names(), []);
    assertUntouched(outside);
  });
}

test("the guest does not choose what its copy is called", async (context) => {
  const { inside, names } = folders(context);
  await unpack(archive([".bashrc", "file", "x"]), inside, { name: "copy" });
  assert.deepEqual(names(), ["copy"]);
});

test("links out of the copy are left out and said, links within it are kept", async (context) => {
  const { inside, outside } = folders(context);
  const said: string[] = [];
  await unpack(
    archive(
      ["t", "directory"],
      ["t/up", "symlink", "../../outside"],
      ["t/absolute", "symlink", join(outside, "precious")],
      ["t/self", "symlink", "."],
      ["t/sly", "symlink", "self/../../outside"],
      ["t/fine", "symlink", "./deep/file"],
      ["t/deep/file", "file", "x"],
    ),
    inside,
    { name: "copy", onLeftOut: (sentence) => said.push(sentence) },
  );
  assert.deepEqual(readdirSync(join(inside, "copy")).toSorted(), ["deep", "fine", "self"]);
  assert.equal(readFileSync(join(inside, "copy/fine"), "utf8"), "x");
  assert.equal(said.length, 3);
  assertUntouched(outside);
});

test("no entry goes through a link: not of this archive, nor of an earlier copy", async (context) => {
  const { inside, outside } = folders(context);
  const through = archive(["t", "directory"], ["t/l", "symlink", "."], ["t/l/x", "file", "evil"]);
  await assert.rejects(unpack(through, inside, { name: "one" }), { code: "wrong_state" });
  mkdirSync(join(inside, "two"));
  symlinkSync(outside, join(inside, "two/l"));
  for (const entry of [
    ["t/l/precious", "file", "evil"],
    ["t/l", "directory"],
    ["t/l/new", "symlink", "x"],
  ] as const) {
    await assert.rejects(unpack(archive(["t", "directory"], entry), inside, { name: "two" }), { code: "wrong_state" });
  }
  assertUntouched(outside);
});

test("a link in a file's place is replaced, not written through", async (context) => {
  const { inside, outside } = folders(context);
  symlinkSync(join(outside, "precious"), join(inside, "copy"));
  await unpack(archive(["x", "file", "new"]), inside, { name: "copy" });
  assert.equal(lstatSync(join(inside, "copy")).isSymbolicLink(), false);
  assertUntouched(outside);
});

test("devices, pipes and hard links are never made", async (context) => {
  const { inside, names } = folders(context);
  const blocks = ["1", "3", "4", "6"].map((flag, index) => {
    const block = Buffer.from(
      encodeTarEntry({ name: `t/${index}`, kind: "file", mode: 0o666, mtime: 0, size: 0, target: "/etc/passwd" }),
    );
    block.write(flag, 156, "latin1");
    block.write(`${checksumOf(block).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
    return block;
  });
  const said: string[] = [];
  async function* source(): AsyncGenerator<Uint8Array> {
    yield* encode([["t", "directory"]]);
    yield* blocks;
    yield TAR_END;
  }
  await unpack(source(), inside, { name: "copy", onLeftOut: (sentence) => said.push(sentence) });
  assert.deepEqual(names(), ["copy"]);
  assert.equal(said.length, 4);
});

test("what is left out is named a hundred times and counted then", async (context) => {
  const { inside } = folders(context);
  const said: string[] = [];
  const links = Array.from({ length: 250 }, (_, index): Part => [`t/${index}`, "symlink", "/etc"]);
  await unpack(archive(["t", "directory"], ...links), inside, { name: "x", onLeftOut: (text) => said.push(text) });
  assert.deepEqual([said.length, said[100]], [101, "150 more of the same"]);
});

test("set-id bits are dropped, the other bits kept, and names with line breaks and escape codes are names", async (context) => {
  const { inside, names } = folders(context);
  const odd = "a\nb\u001b[2J";
  await unpack(
    archive(["t", "directory", "", 0o750], [`t/${odd}`, "file", "x", 0o6751], ["t/private", "file", "x", 0o600]),
    inside,
    { name: "copy" },
  );
  const mode = (name: string) => statSync(join(inside, "copy", name)).mode & 0o7777;
  const umask = process.umask();
  assert.deepEqual([mode(""), mode(odd), mode("private")], [0o750 & ~umask, 0o751 & ~umask, 0o600]);
  assert.deepEqual(names(), ["copy", `copy/${odd}`, "copy/private"]);
});

test("a directory that its owner may not write into is filled all the same", async (context) => {
  const { inside } = folders(context);
  await unpack(archive(["t", "directory", "", 0o555], ["t/file", "file", "x"]), inside, { name: "copy" });
  assert.equal(statSync(join(inside, "copy")).mode & 0o777, 0o555 & ~process.umask());
  assert.ok(existsSync(join(inside, "copy/file")));
  chmodSync(join(inside, "copy"), 0o755);
});

test("a copy that breaks off leaves the old file as it was, and no part of the new one", async (context) => {
  const { inside, names } = folders(context);
  writeFileSync(join(inside, "copy"), "old");
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield encodeTarEntry({ name: "x", kind: "file", mode: 0o644, mtime: 0, size: 2 ** 40, target: "" });
    yield Buffer.from("half");
  }
  await assert.rejects(unpack(broken(), inside, { name: "copy" }), { code: "guest_unreachable" });
  assert.deepEqual(names(), ["copy"]);
  assert.equal(readFileSync(join(inside, "copy"), "utf8"), "old");
});

test("what stands in the way is said, and what the guest says at the end is the copy's failure", async (context) => {
  const { inside } = folders(context);
  mkdirSync(join(inside, "folder/copy"), { recursive: true });
  writeFileSync(join(inside, "file"), "x");
  const file = () => archive(["x", "file", "x"]);
  await assert.rejects(unpack(file(), join(inside, "folder"), { name: "copy" }), { code: "wrong_state" });
  await assert.rejects(unpack(file(), join(inside, "none/x"), { name: "x" }), { code: "not_found" });
  await assert.rejects(unpack(file(), join(inside, "none/"), { name: "x" }), { code: "not_found" });
  await assert.rejects(unpack(archive(["x", "directory"]), join(inside, "file"), { name: "x" }), {
    code: "wrong_state",
  });
  async function* failed(): AsyncGenerator<Uint8Array> {
    const record = Buffer.from("24 VOLANT.error=no more\n");
    const block = Buffer.from(
      encodeTarEntry({ name: "pax", kind: "file", mode: 0o644, mtime: 0, size: record.length, target: "" }),
    );
    block.write("g", 156, "latin1");
    block.write(`${checksumOf(block).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
    yield* [block, record, Buffer.alloc(paddingOf(record.length)), TAR_END];
  }
  await assert.rejects(unpack(failed(), inside, { name: "x" }), { code: "wrong_state", message: "no more" });
});

test("whatever names and links an archive holds, nothing outside of the copy changes", async (context) => {
  const { inside, outside } = folders(context);
  const segment = fc.constantFrom("a", "b", "..", ".", "", "outside", "precious");
  const path = fc.array(segment, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("/"));
  const part = fc.tuple(path, fc.constantFrom<TarKind>("file", "directory", "symlink"), path);
  let round = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(part, { maxLength: 8 }), async (parts) => {
      const name = `copy-${(round += 1)}`;
      const entries = parts.map(([below, kind, content]): Part => [`t/${below}`, kind, content]);
      const copy = archive(["t", "directory"], ...entries);
      await unpack(copy, inside, { name }).catch((error: { code?: string }) => {
        if (error.code === undefined) throw error;
      });
      assertUntouched(outside);
      // And no link in it leads out of it.
      const made = existsSync(join(inside, name)) ? readdirSync(join(inside, name), { recursive: true }) : [];
      for (const below of made) {
        const at = join(inside, name, String(below));
        if (lstatSync(at).isSymbolicLink()) assert.ok(staysWithin(join(inside, name), at, readlinkSync(at)), at);
      }
    }),
    { numRuns: 300 },
  );
});

test("components and links are judged by themselves", () => {
  assert.deepEqual(componentsBelow("top/a/b"), ["a", "b"]);
  assert.deepEqual(componentsBelow("top"), []);
  for (const [target, within] of [
    ["x", true],
    ["../x", true],
    ["../../x", false],
    ["x/../y", false],
    ["/root/c/x", false],
    ["..", true],
    ["", false],
  ] as const) {
    assert.equal(staysWithin("/root/c", "/root/c/d/link", target), within, target);
  }
});

test("a tree goes through pack and unpack as it is, and other tars read it", async (context) => {
  const { inside, outside } = folders(context);
  mkdirSync(join(outside, "deep/er"), { recursive: true });
  writeFileSync(join(outside, "deep/er", "n".repeat(200)), Buffer.alloc(200_000, 7), { mode: 0o640 });
  symlinkSync("deep/er", join(outside, "link"));
  const source = await openSource(outside);
  await unpack(packSource(source), inside, { name: "copy" });
  execFileSync("diff", ["-r", "--no-dereference", outside, join(inside, "copy")]);
  const bytes = await buffer(packSource(source));
  execFileSync("tar", ["-x", "-C", inside], { input: bytes });
  execFileSync("diff", ["-r", "--no-dereference", outside, join(inside, "outside")]);
  await assert.rejects(openSource(join(outside, "none")), { code: "not_found" });
  await assert.rejects(openSource("/dev/null"), { code: "wrong_state" });
});
