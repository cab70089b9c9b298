/** Server-sent events over real HTTP: frames, replay, heartbeat, errors, the end. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { createInterface } from "node:readline";
import { PassThrough } from "node:stream";
import test from "node:test";
import { VolantError, type VmEvent } from "@volant/contract";
import type { EventSubscription, NumberedEvent } from "../engine/use-cases.ts";
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

async function open({ address }: RunningApi, headers: Record<string, string> = {}, query = ""): Promise<Reader> {
  const outgoing = request(`${address}/api/v1/events/vms${query}`, { headers, agent: false });
  outgoing.end();
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  const reader = new Reader(answer);
  assert.match((await reader.frame())?.join("\n") ?? "", /^retry: 1000\nid: \d+$/);
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

test("an idle stream carries heartbeats, which move Last-Event-ID and are no events", async () => {
  const running = await runApi({}, { heartbeatMs: 5 });
  const reader = await open(running);
  assert.deepEqual(await reader.frame(), [": heartbeat", "id: 0"]);
  running.feed.publish(log("x"));
  let frame = await reader.frame();
  while (frame?.[0] === ": heartbeat" && frame[1] === "id: 0") frame = await reader.frame();
  assert.deepEqual(frame?.slice(0, 2), ["id: 1", "event: VM_LOG"]);
  assert.deepEqual(await reader.frame(), [": heartbeat", "id: 1"]);
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

test("what is kept is listed, the newest first, by VM, type, time and page", async () => {
  const running = await runApi();
  for (const name of ["a", "b", "c"]) await running.useCases.vms.create({ name });
  running.move("a", "running");
  running.feed.publish(log("x"));
  const list = async (query: string) => {
    const { status, json, text } = await rawRequest(running.address, `/api/v1/events?${query}`);
    return [status, status === 200 ? (json as { id: number }[]).map(({ id }) => id) : text] as const;
  };
  assert.deepEqual(await list("type=VM_CREATED,VM_RUNNING&limit=2"), [200, [4, 3]]);
  assert.deepEqual(await list("name=a&name=b&before=4"), [200, [2, 1]]);
  assert.deepEqual(await list(`since=${timestamp}&after=3&type=VM_RUNNING`), [200, [4]]);
  assert.deepEqual(await list("since=2026-01-02T00:00:00Z"), [200, []]);
  for (const [query, sentence] of [
    ["since=soon", /must be a time such as/],
    ["since=2026-13-01T00:00:00Z", /there is no time 2026-13-01/],
    ["type=VM_LOG", /lines of logs are not kept/],
    ["type=VM_X", /type/],
    ["limit=1001", /limit/],
    ["name=../x", /must not contain/],
    ["vm=a", /unknown field/],
  ] as const) {
    const [status, body] = await list(query);
    assert.equal(status, 400, query);
    assert.match(String(body), sentence);
  }
  await running.api.close();
});

test("a stream is of the VMs and types that were asked for, from an id or a time on; Last-Event-ID goes before both", async () => {
  const running = await runApi();
  for (const name of ["a", "b", "c"]) await running.useCases.vms.create({ name });
  const ids = async (query: string, headers: Record<string, string> = {}, count = 2) => {
    const reader = await open(running, headers, `?${query}`);
    const found: (string | undefined)[] = [];
    while (found.length < count) found.push((await reader.frame())?.[0]);
    reader.answer.destroy();
    return found;
  };
  assert.deepEqual(await ids(`since=${timestamp}&name=b,c`), ["id: 2", "id: 3"]);
  assert.deepEqual(await ids("after=1&type=VM_CREATED"), ["id: 2", "id: 3"]);
  assert.deepEqual(await ids(`after=0&since=${timestamp}`, { "last-event-id": "2" }, 1), ["id: 3"]);
  await running.api.close();
});

test("an event is one frame whatever its text holds", () => {
  const frame = eventFrame({ id: 7, event: log("a\n\nid: 9\r\nevent: VM_DELETED\u2028") });
  assert.equal(frame.split("\n").length, 5);
  assert.match(frame, /^id: 7\nevent: VM_LOG\ndata: \{.*\}\n\n$/s);
});

function subscription(items: AsyncIterable<NumberedEvent>): EventSubscription {
  return { [Symbol.asyncIterator]: () => items[Symbol.asyncIterator](), position: 1 };
}

function failing(error: unknown): EventSubscription {
  async function* items(): AsyncGenerator<NumberedEvent> {
    yield { id: 1, event: log("x") };
    throw error;
  }
  return subscription(items());
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
  const streaming = streamEvents({
    events: subscription(endless()),
    output,
    signal: controller.signal,
    heartbeatMs: 1,
  });
  await new Promise(setImmediate);
  const before = given;
  assert.ok(before < 100);
  await new Promise(setImmediate);
  assert.equal(given, before);
  controller.abort();
  await streaming;
});
