import assert from "node:assert/strict";
import { once } from "node:events";
import { duplexPair, type Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import test from "node:test";
import { encodeExecFrame, EXEC_FRAME, ExecFrameDecoder, type ExecFrame } from "@volant/contract/exec-frames";
import { GuestProcess } from "./guest-process.ts";

const bytes = (words: string) => new TextEncoder().encode(words);

/** A process, and the guest's end of its stream. */
function begin(): { readonly process: GuestProcess; readonly guest: Duplex } {
  const [client, guest] = duplexPair();
  return { process: new GuestProcess(client), guest };
}

test("output goes to its stream, and the exit comes after it", async () => {
  const { process, guest } = begin();
  guest.write(encodeExecFrame(EXEC_FRAME.stdout, bytes("out")));
  guest.write(encodeExecFrame(EXEC_FRAME.stderr, bytes("err")));
  guest.write(encodeExecFrame(EXEC_FRAME.exit, bytes('{"code":3}')));
  assert.deepEqual(await Promise.all([text(process.stdout), text(process.stderr)]), ["out", "err"]);
  assert.deepEqual(await process.exit, { code: 3 });
});

test("input is cut into frames, and its end is a frame of its own", async () => {
  const { process, guest } = begin();
  const decoder = new ExecFrameDecoder();
  const frames: ExecFrame[] = [];
  guest.on("data", (part: Buffer) => frames.push(...decoder.feed(part)));
  process.resize({ cols: 80, rows: 24 });
  process.stdin.end(Buffer.alloc(150_000, "x"));
  await once(process.stdin, "finish");
  guest.write(encodeExecFrame(EXEC_FRAME.exit, bytes('{"signal":15}')));
  assert.deepEqual(await process.exit, { signal: 15 });
  assert.deepEqual(
    frames.map(({ kind, payload }) => [kind, payload.length]),
    [
      [EXEC_FRAME.resize, 21],
      [EXEC_FRAME.stdin, 65_536],
      [EXEC_FRAME.stdin, 65_536],
      [EXEC_FRAME.stdin, 18_928],
      [EXEC_FRAME.stdin, 0],
    ],
  );
});

test("a program that can't be run, a stream that breaks and a guest that talks nonsense are errors with a code", async () => {
  const cases: [code: string, send: (guest: Duplex) => void][] = [
    [
      "not_found",
      (guest) => guest.write(encodeExecFrame(EXEC_FRAME.error, bytes('{"error":"no","code":"not_found"}'))),
    ],
    ["forbidden", (guest) => guest.write(encodeExecFrame(EXEC_FRAME.error, bytes('{"code":"not_executable"}')))],
    ["guest_unreachable", (guest) => guest.write(encodeExecFrame(EXEC_FRAME.error, bytes("nonsense")))],
    ["guest_unreachable", (guest) => guest.end()],
    ["guest_unreachable", (guest) => guest.write(encodeExecFrame(EXEC_FRAME.exit, bytes('{"code":"x"}')))],
    ["guest_unreachable", (guest) => guest.write(Buffer.alloc(20, 0xff))],
  ];
  for (const [code, send] of cases) {
    const { process, guest } = begin();
    send(guest);
    await assert.rejects(process.exit, { code });
    assert.equal(await text(process.stdout), "");
  }
});

test("output that nobody reads holds the program up", async () => {
  const { process, guest } = begin();
  const frame = encodeExecFrame(EXEC_FRAME.stdout, Buffer.alloc(60_000, "x"));
  let held = 0;
  while (guest.write(frame)) {
    held += 1;
    assert.ok(held < 50, "it took more than a few buffers of output");
    await new Promise(setImmediate);
  }
  assert.equal(process.stdout.readableLength <= 4 * 60_000, true);
  process.close();
});
