/** What a guest sends is not trusted: whatever it is, running a program ends, with no more than was asked for. */
import assert from "node:assert/strict";
import { duplexPair, type Duplex } from "node:stream";
import test from "node:test";
import { encodeExecFrame, EXEC_FRAME, ExecFrameDecoder, type ExecFrame } from "@volant/contract";
import { runToEnd } from "./guest-run.ts";

const frame = (kind: number, content: string) => encodeExecFrame(kind, Buffer.from(content));

/** Runs `x` in a guest that does as it is told once it has got the start frame. */
async function withGuest(act: (guest: Duplex) => void, request = {}): Promise<unknown> {
  const [host, guest] = duplexPair();
  guest.on("error", () => {}).once("data", () => act(guest));
  const result = await runToEnd(host, { command: ["x"], ...request });
  assert.ok(host.destroyed, "the stream is closed, and with it the program");
  return result;
}

const gone = { code: "guest_unreachable" };

test("a guest that hangs up, or ends its stream without an ending, is unreachable", async () => {
  await assert.rejects(
    withGuest((guest) => void guest.destroy()),
    gone,
  );
  await assert.rejects(
    withGuest((guest) => void guest.end(frame(EXEC_FRAME.stdout, "half"))),
    gone,
  );
});

test("frames that are none are refused: too long, an ending that is none, an error of no known kind", async () => {
  const sent = (bytes: Uint8Array) => withGuest((guest) => void guest.write(bytes));
  await assert.rejects(sent(Buffer.from([EXEC_FRAME.stdout, 0xff, 0xff, 0xff, 0xff])), gone);
  for (const ending of ['{"code":256}', '{"code":"0"}', "[]", "nonsense", '{"signal":0}']) {
    await assert.rejects(sent(frame(EXEC_FRAME.exit, ending)), gone, ending);
  }
  await assert.rejects(sent(frame(EXEC_FRAME.error, '{"error":"odd","code":"internal"}')), gone);
  await assert.rejects(sent(frame(EXEC_FRAME.error, "nonsense")), gone);
  await assert.rejects(sent(frame(EXEC_FRAME.error, '{"error":"no","code":"not_executable"}')), { code: "forbidden" });
});

test("bytes that are no text are replaced, at the cut, too, and frames of an unknown kind are passed over", async () => {
  const result = await withGuest(
    (guest) => {
      guest.write(frame(0x7f, "later"));
      guest.write(encodeExecFrame(EXEC_FRAME.stdout, Buffer.from([0x61, 0xff, 0x00, 0xc3, 0xbc])));
      guest.write(frame(EXEC_FRAME.exit, '{"code":0}'));
    },
    { max_output_bytes: 4 },
  );
  const rest = { exit_code: 0, stderr: "", timed_out: false, truncated: true };
  assert.deepEqual(result, { ...rest, stdout: "a\ufffd\0\ufffd" });
});

test("a guest that takes no input does not keep its program from ending", async () => {
  const result = await withGuest((guest) => void guest.pause().write(frame(EXEC_FRAME.exit, '{"signal":15}')), {
    stdin: "x".repeat(500_000),
  });
  assert.deepEqual(result, { signal: 15, stdout: "", stderr: "", timed_out: false, truncated: false });
});

test("the program, its environment, its directory and its input reach the guest as they were given", async () => {
  const [host, guest] = duplexPair();
  const frames: ExecFrame[] = [];
  const decoder = new ExecFrameDecoder();
  const given = { command: ["a", "-b; c", "$d"], env: { E: "f" }, cwd: "/g", stdin: "ü".repeat(70_000) };
  const ended = runToEnd(host, given);
  for await (const bytes of guest as AsyncIterable<Buffer>) {
    frames.push(...decoder.feed(bytes).map(({ kind, payload }) => ({ kind, payload: payload.slice() })));
    if (frames.at(-1)?.payload.length === 0) break;
    guest.resume();
  }
  const [start, ...input] = frames;
  const words = JSON.parse(Buffer.from(start?.payload ?? []).toString("utf8")) as object;
  assert.deepEqual([start?.kind, words], [EXEC_FRAME.start, { argv: given.command, env: given.env, cwd: given.cwd }]);
  assert.equal(Buffer.concat(input.map(({ payload }) => payload)).toString("utf8"), given.stdin);
  await assert.rejects(ended, gone);
});
