import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import fc from "fast-check";
import {
  beatLine,
  encodeAsk,
  encodeClock,
  encodeHello,
  MAX_LINE_TO_HOST_BYTES,
  parseAgentLine,
} from "./control-lines.ts";
import { Handshake } from "./handshake.ts";
import { LineReader } from "./line-reader.ts";

interface GoldenLine {
  readonly name: string;
  readonly from: "host" | "agent";
  readonly line: string;
  readonly accepted: boolean;
  readonly nonce?: string;
  readonly unix_ms?: number;
  readonly version?: string;
  readonly vsock_port?: number;
  readonly code?: string;
  readonly type?: string;
  readonly id?: number;
  readonly status?: number;
  readonly body?: unknown;
  readonly report?: unknown;
}

const golden = JSON.parse(
  readFileSync(new URL("../../../../kestrel/golden/control.json", import.meta.url), "utf8"),
) as GoldenLine[];
const nonce = "0123456789abcdef0123456789abcdef";
const now = new Date("2026-01-02T03:04:05.678Z");

function goldenLine(name: string): string {
  const found = golden.find((candidate) => candidate.name === name);
  assert.ok(found, name);
  return found.line;
}

test("golden lines of the agent are understood or ignored as they say", () => {
  const lines = golden.filter((candidate) => candidate.from === "agent");
  assert.ok(lines.length >= 5);
  for (const { name, line, accepted, ...expected } of lines) {
    const parsed = parseAgentLine(line);
    assert.equal(parsed !== undefined, accepted, name);
    if (parsed === undefined) continue;
    assert.equal(parsed.nonce, expected.nonce, name);
    assert.equal(parsed.type, expected.type ?? "ack", name);
    switch (parsed.type) {
      case "error":
        assert.equal(parsed.code, expected.code, name);
        break;
      case "answer":
        assert.deepEqual([parsed.id, parsed.status, parsed.body], [expected.id, expected.status, expected.body], name);
        break;
      case "status":
        assert.deepEqual(parsed.status, expected.report, name);
        break;
      case "ack":
        assert.deepEqual(
          [parsed.agent.version, parsed.wallTime.getTime(), parsed.agent.vsockPort],
          [expected.version, expected.unix_ms, expected.vsock_port],
          name,
        );
    }
  }
});

test("hello, clock and questions are the golden ones, each on a line of its own after a newline", () => {
  const identity = {
    vmId: 7,
    name: "Web_1",
    hostname: "web-1",
    mac: "02:76:6f:00:00:07",
    address: "192.168.127.2",
  };
  assert.equal(encodeHello({ nonce, generation: 3, identity, beatMs: 2500 }, now), `\n${goldenLine("hello")}\n`);
  assert.equal(encodeClock(nonce, now), `\n${goldenLine("clock")}\n`);
  const log = "/v1/logs?after=42&wait";
  assert.equal(encodeAsk(nonce, 1, "GET", log, undefined), `\n${goldenLine("ask")}\n`);
  const stream = JSON.stringify({ nonce: "f".repeat(32) });
  assert.equal(encodeAsk(nonce, 2, "POST", "/v1/stream", stream), `\n${goldenLine("ask for a stream")}\n`);
  assert.equal(beatLine(nonce), goldenLine("beat"));
});

const heard = (name: string) => parseAgentLine(goldenLine(name));

test("only the first ack with our nonce begins a session", () => {
  const other = new Handshake("f".repeat(32));
  assert.equal(other.receive(heard("ack"), now).kind, "ignore");
  const handshake = new Handshake(nonce);
  assert.equal(handshake.receive(parseAgentLine("noise"), now).kind, "ignore");
  assert.equal(handshake.receive(heard("beat"), now).kind, "ignore");
  assert.equal(handshake.receive(heard("ack"), now).kind, "begin");
  assert.equal(handshake.receive(heard("ack"), now).kind, "ignore");
});

test("a guest whose clock is off by more than a second is told the time", () => {
  const at = (ms: number) => new Handshake(nonce).receive(heard("ack"), new Date(now.getTime() + ms));
  for (const ms of [-1000, 0, 1000]) assert.ok(!("clock" in at(ms)), `${ms}`);
  for (const ms of [-1001, 1001, 1e12]) {
    const step = at(ms);
    assert.ok(step.kind === "begin" && step.clock !== undefined, `${ms}`);
    assert.match(step.clock, /"type":"clock"/);
  }
});

test("an agent that refuses is an error in its own words, disarmed", () => {
  const step = new Handshake(nonce).receive(heard("error"), now);
  assert.ok(step.kind === "refused");
  assert.match(step.error.message, /speaks protocol 2, not 1/);
});

test("no line from a guest throws", () => {
  const anyJson = fc.jsonValue().map((value) => JSON.stringify(value));
  const nearlyGood = fc
    .record({
      type: fc.constantFrom("ack", "error", "answer", "status", "beat"),
      nonce: fc.constant(nonce),
      wall_time: fc.anything(),
      agent: fc.anything(),
      id: fc.anything(),
      status: fc.anything(),
      body: fc.anything(),
    })
    .map((value) => {
      try {
        return JSON.stringify(value) ?? "";
      } catch {
        return "";
      }
    });
  fc.assert(
    fc.property(fc.oneof(fc.string(), anyJson, nearlyGood), (line) => {
      new Handshake(nonce).receive(parseAgentLine(line), now);
    }),
  );
});

test("lines are found however the bytes are cut, and one that is too long is dropped whole", () => {
  const text = Buffer.from(`half\n\n{"a":"ü"}\n${"x".repeat(200)}\nafter\nunfinished`);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }), (sizes) => {
      const reader = new LineReader(100);
      const lines: string[] = [];
      for (let at = 0, turn = 0; at < text.length; turn++) {
        const size = sizes[turn % sizes.length] ?? 1;
        lines.push(...reader.feed(text.subarray(at, at + size)));
        at += size;
      }
      assert.deepEqual(lines, ["half", '{"a":"ü"}', "after"]);
    }),
  );
});

test("an endless line of single bytes takes bounded memory and loses nothing after it", () => {
  const reader = new LineReader(MAX_LINE_TO_HOST_BYTES);
  for (let count = 0; count < 300_000; count++) assert.deepEqual(reader.feed(Buffer.from("y")), []);
  assert.deepEqual(reader.feed(Buffer.from("\nok\n")), ["ok"]);
});
