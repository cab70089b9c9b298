/** Server-sent events over real HTTP: frames, replay, heartbeat, errors, the end. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { createInterface } from "node:readline";
import { PassThrough } from "node:stream";
import test from "node:test";
import { VolantError, type VmEvent } from "@volant/contract";
import type { NumberedEvent } from "../engine/use-cases.ts";
import { eventFrame, streamEvents } from "./sse.ts";
import { rawRequest } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

const timestamp = "2026-01-01T00:00:00.000Z";
const log = (line: string): VmEvent => ({ type: "VM_LOG", name: "a", timestamp, line });

class Reader {
  readonly answer: IncomingMessage;
  readonly #lines: AsyncIterator<string>;

  constructor(answer: IncomingMessage) {
    this.answer = answer;
    this.#lines = createInterface({ input: answer })[Symbol.asyncIterator]();
  }

  /** Lines up to and without the next empty one; undefined at the end. */
  async frame(): Promise<string[] | undefined> {
    const lines: string[] = [];
    for (;;) {
      const next = await this.#lines.next();
      if (next.done === true) return undefined;
      if (next.value === "") return lines;
      lines.push(next.value);
    }
  }
}

async function open({ address }: RunningApi, headers: Record<string, string> = {}): Promise<Reader> {
  const outgoing = request(`${address}/api/v1/events/vms`, { headers, agent: false });
  outgoing.end();
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  const reader = new Reader(answer);
  assert.deepEqual(await reader.frame(), ["retry: 1000"]);
  return reader;
}

test("events arrive live with id, type and data, and the stream ends in order when the API closes", async () => {
  const running = await runApi();
  const reader = await open(running);
  assert.equal(reader.answer.headers["content-type"], "text/event-stream");
  assert.equal(reader.answer.headers["cache-control"], "no-store");
  await running.useCases.vms.create({ name: "a" });
  assert.deepEqual(await reader.frame(), [
    "id: 1",
    "event: VM_CREATED",
    `data: {"type":"VM_CREATED","name":"a","status":"pending","timestamp":"${timestamp}"}`,
  ]);
  await running.api.close();
  assert.equal(await reader.frame(), undefined);
  assert.equal(reader.answer.complete, true, "ended, not cut");
});

test("a reader that comes back with Last-Event-ID gets what it missed, in order", async () => {
  const running = await runApi();
  for (const line of ["one", "two", "three"]) running.feed.publish(log(line));
  const reader = await open(running, { "last-event-id": "1" });
  assert.equal((await reader.frame())?.[0], "id: 2");
  assert.equal((await reader.frame())?.[0], "id: 3");
  running.feed.publish(log("four"));
  assert.equal((await reader.frame())?.[0], "id: 4");
  await running.api.close();
});

test("a Last-Event-ID that is none is refused", async () => {
  const running = await runApi();
  const answer = await rawRequest(running.address, "/api/v1/events/vms", { headers: { "last-event-id": "abc" } });
  assert.equal(answer.status, 400);
  await running.api.close();
});

test("an idle stream carries heartbeats", async () => {
  const running = await runApi({}, { heartbeatMs: 5 });
  const reader = await open(running);
  assert.deepEqual(await reader.frame(), [": heartbeat"]);
  assert.deepEqual(await reader.frame(), [": heartbeat"]);
  await running.api.close();
});

test("a reader that goes away is forgotten", async () => {
  const running = await runApi();
  const reader = await open(running);
  const [socket] = await Promise.all([once(reader.answer, "close"), reader.answer.destroy()]);
  assert.ok(socket);
  while (running.feed.readers > 0) await new Promise(setImmediate);
  await running.api.close();
});

test("a page of another origin gets no stream, an allowed one can read it", async () => {
  const running = await runApi({ corsOrigins: ["https://console.example"] });
  const refused = await rawRequest(running.address, "/api/v1/events/vms", {
    headers: { origin: "https://evil.example" },
  });
  assert.equal(refused.status, 403);
  const reader = await open(running, { origin: "https://console.example" });
  assert.equal(reader.answer.headers["access-control-allow-origin"], "https://console.example");
  await running.api.close();
});

test("an event is one frame whatever its text holds", () => {
  const frame = eventFrame({ id: 7, event: log("a\n\nid: 9\r\nevent: VM_DELETED\u2028") });
  assert.equal(frame.split("\n").length, 5);
  assert.match(frame, /^id: 7\nevent: VM_LOG\ndata: \{.*\}\n\n$/s);
});

async function* failing(error: unknown): AsyncGenerator<NumberedEvent> {
  yield { id: 1, event: log("x") };
  throw error;
}

test("an expected failure of the feed is told to the reader, a bug is thrown; both end the stream", async () => {
  const { signal } = new AbortController();
  const told = new PassThrough();
  const slow = new VolantError("rate_limited", "the reader fell behind");
  await streamEvents({ events: failing(slow), output: told, signal, heartbeatMs: 1000 });
  const text = Buffer.concat(await told.toArray()).toString();
  assert.match(text, /event: error\ndata: \{"error":"the reader fell behind","code":"rate_limited"\}\n\n$/);
  const cut = new PassThrough();
  await assert.rejects(
    streamEvents({ events: failing(new TypeError("bug")), output: cut, signal, heartbeatMs: 1000 }),
    TypeError,
  );
  assert.equal(cut.writableEnded, true);
});

test("a reader that does not read stops the feed from being drained, until it is gone", async () => {
  const controller = new AbortController();
  let given = 0;
  async function* endless(): AsyncGenerator<NumberedEvent> {
    for (;;) yield { id: (given += 1), event: log("x".repeat(1000)) };
  }
  const output = new PassThrough({ highWaterMark: 10_000 });
  const streaming = streamEvents({ events: endless(), output, signal: controller.signal, heartbeatMs: 1 });
  await new Promise(setImmediate);
  const before = given;
  assert.ok(before < 100);
  await new Promise(setImmediate);
  assert.equal(given, before);
  controller.abort();
  await streaming;
});
