import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { childEnd, type ChildStart, collectChild, listenUnix, NetlinkError, startChild } from "@volant/netlink";

const folder = mkdtempSync(join(tmpdir(), "children-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const code = (expected: string) => (error: unknown) => error instanceof NetlinkError && error.code === expected;
const openFiles = (): string[] => readdirSync("/proc/self/fd");
const limit = { timeout: 60_000 };

let count = 0;

/** Runs a shell with these words, and gives how it ended and what it printed. */
async function shell(
  script: string,
  more: readonly number[] = [],
  options: Pick<ChildStart, "ownSession" | "ignoredSignals"> = {},
) {
  count += 1;
  const path = join(folder, `out-${count}`);
  const [input, output] = [openSync("/dev/null", "r"), openSync(path, "w")];
  try {
    const pid = await startChild({
      path: "/bin/sh",
      args: ["sh", "-c", script],
      env: { WORD: "from the environment", PATH: "/usr/bin:/bin" },
      files: [input, output, output, ...more],
      workingDirectory: "/",
      ...options,
    });
    return { pid, end: await childEnd(pid), said: readFileSync(path, "utf8") };
  } finally {
    closeSync(input);
    closeSync(output);
  }
}

test(
  "a child has its arguments, its environment and its working directory, and nothing of this process's environment",
  limit,
  async () => {
    process.env["VOLANT_SECRET"] = "x";
    const { end, said } = await shell('echo "$0|$WORD|$VOLANT_SECRET"; pwd; exit 3');
    delete process.env["VOLANT_SECRET"];
    assert.equal(said, "sh|from the environment||\n/\n".replace("||", "|"));
    assert.deepEqual(end, { exitCode: 3 });
  },
);

test(
  "a child finds the descriptors that it was given in their order, whatever their numbers were here, and no others",
  limit,
  async () => {
    const paths = Array.from({ length: 12 }, (_none, index) => join(folder, `given-${index}`));
    const files = paths.map((path) => openSync(path, "w"));
    const kept = openSync(join(folder, "kept"), "w");
    const before = openFiles();
    // In an order in which numbers and targets cross.
    const given = [...files.slice(6).toReversed(), ...files.slice(0, 6)];
    const { end, said } = await shell(
      "for n in 3 4 5 6 7 8 9 10 11 12 13 14; do readlink /proc/$$/fd/$n; done; ls /proc/$$/fd",
      given,
    );
    assert.deepEqual(end, { exitCode: 0 });
    const lines = said.trimEnd().split("\n");
    assert.deepEqual(
      lines.slice(0, 12),
      given.map((fd) => readlinkSync(`/proc/self/fd/${fd}`)),
    );
    assert.ok(!said.includes(join(folder, "kept")));
    const inherited = new Set(lines.slice(12).map(Number));
    assert.ok(!inherited.has(kept) || kept < 15, "a descriptor that was not given is closed");
    assert.deepEqual(openFiles(), before, "and none is left open here");
    for (const fd of [...files, kept]) closeSync(fd);
  },
);

test("a child begins with every signal in its default way, though this process ignores some", limit, async () => {
  const { said } = await shell("grep -E '^Sig(Blk|Ign)' /proc/self/status");
  const [blocked, ignored] = said
    .trimEnd()
    .split("\n")
    .map((line) => BigInt(`0x${line.split("\t")[1]}`));
  assert.equal(blocked, 0n);
  // 32 and 33 are the C library's own.
  assert.equal((ignored ?? 0n) & ~0x1_8000_0000n, 0n);
});

test("a child ignores the signals that it is to ignore, and no others", limit, async () => {
  const { SIGUSR2, SIGXFSZ } = constants.signals;
  const { said } = await shell("grep '^SigIgn' /proc/self/status", [], { ignoredSignals: [SIGUSR2, SIGXFSZ] });
  const bit = (signal: number) => 1n << BigInt(signal - 1);
  const ignored = BigInt(`0x${said.trimEnd().split("\t")[1]}`) & ~0x1_8000_0000n;
  assert.equal(ignored, bit(SIGUSR2) | bit(SIGXFSZ));
});

test("a child leads a session of its own where it was asked to", limit, async () => {
  const script = "cut -d' ' -f6 /proc/$$/stat";
  const own = await shell(script, [], { ownSession: true });
  assert.equal(Number(own.said), own.pid);
  const shared = await shell(script);
  assert.notEqual(Number(shared.said), shared.pid);
});

test("how a child ended is told once: its exit code, or the signal", limit, async () => {
  const killed = await shell("kill -KILL $$");
  assert.deepEqual(killed.end, { signal: "SIGKILL" });
  assert.throws(() => collectChild(killed.pid), code("ECHILD"));
  await assert.rejects(childEnd(killed.pid), NetlinkError);
});

test("a child that still runs has no end yet", limit, async () => {
  const nothing = openSync("/dev/null", "r+");
  const pid = await startChild({
    path: "/bin/sleep",
    args: ["sleep", "1000"],
    env: {},
    files: [nothing, nothing, nothing],
  });
  closeSync(nothing);
  assert.equal(collectChild(pid), undefined);
  const ended = childEnd(pid);
  process.kill(pid, "SIGTERM");
  assert.deepEqual(await ended, { signal: "SIGTERM" });
});

test("an argument with a zero byte starts nothing, and does not become two", limit, async () => {
  const before = openFiles();
  const start = startChild({
    path: "/bin/echo",
    args: ["echo", "one\0two"],
    env: {},
    files: [],
    workingDirectory: "/",
  });
  await assert.rejects(start, /zero byte/);
  assert.deepEqual(openFiles(), before);
});

test("a program that is not there, or can't be run, is an error and no child", limit, async () => {
  const start = { args: ["x"], env: {}, files: [] };
  await assert.rejects(startChild({ ...start, path: join(folder, "absent") }), code("ENOENT"));
  await assert.rejects(startChild({ ...start, path: folder }), code("EACCES"));
  await assert.rejects(startChild({ ...start, path: "/bin/true", files: [99_999] }), code("EBADF"));
});

test(
  "who connects to a listening socket waits for the child that gets it, and learns when there is none",
  limit,
  async () => {
    const path = join(folder, "socket");
    const fd = listenUnix(path);
    assert.throws(() => listenUnix(path), code("EADDRINUSE"));
    assert.throws(() => listenUnix("x".repeat(108)), code("EINVAL"));
    const client = connect(path);
    await new Promise((resolve) => client.once("connect", resolve));
    const closed = new Promise((resolve) => client.once("close", resolve));
    client.on("error", () => {});
    client.resume();
    closeSync(fd);
    await closed;
  },
);
