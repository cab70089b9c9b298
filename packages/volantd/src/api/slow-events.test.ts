/** A reader of events that does not read: the real hub and store behind the real API, and a socket from which nothing is taken. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import test, { after } from "node:test";
import { EventHub } from "../engine/event-hub.ts";
import type { EventSubscription } from "../engine/use-cases.ts";
import { SqliteStore } from "../store/sqlite-store.ts";
import { startApi, type Api } from "./server.ts";
import { streamEvents } from "./sse.ts";
import { createStandIn } from "./testing/stand-in.ts";

const BACKLOG = 50;
const LIMIT_MS = 60_000;
const directory = mkdtempSync(join(tmpdir(), "slow-events-"));
const store = SqliteStore.open({
  path: join(directory, "state.db"),
  now: () => new Date(),
  newInstallation: () => "abcdef01",
});
after(() => {
  store.close();
  rmSync(directory, { recursive: true });
});

const subscriptions: EventSubscription[] = [];

class WatchedHub extends EventHub {
  override subscribe(options: Parameters<EventHub["subscribe"]>[0]): EventSubscription {
    const subscription = super.subscribe(options);
    subscriptions.push(subscription);
    return subscription;
  }
}

async function openApi(hub: EventHub): Promise<Api> {
  const ignore = () => undefined;
  return startApi({
    useCases: { ...createStandIn().useCases, events: hub },
    config: { listenHost: "127.0.0.1", listenPort: 0, allowCidrs: [], corsOrigins: [] },
    log: { info: ignore, warn: ignore, error: ignore },
  });
}

/** Sends the request and takes nothing more than the head of the answer. */
async function ask(address: string, lastId?: string): Promise<Socket> {
  const { hostname, port } = new URL(address);
  const socket = connect({ host: hostname, port: Number(port) });
  const last = lastId === undefined ? "" : `Last-Event-ID: ${lastId}\r\n`;
  socket.write(`GET /api/v1/events/vms HTTP/1.1\r\nHost: ${hostname}:${port}\r\n${last}\r\n`);
  await once(socket, "readable");
  return socket;
}

/** Numbers of the events in what a socket holds, and the text after the last one. */
async function readAll(socket: Socket, until: string): Promise<{ numbers: number[]; lastId: string; end: string }> {
  const timer = setTimeout(() => socket.destroy(new Error(`${until} has not come within ${LIMIT_MS} ms`)), LIMIT_MS);
  let text = "";
  for await (const piece of socket.setEncoding("utf8")) {
    // Chunks of HTTP/1.1 begin with their length on a line of its own: RFC 9112 section 7.1.
    text += String(piece);
    if (text.includes(until)) break;
  }
  clearTimeout(timer);
  const plain = text.replaceAll(/\r\n[0-9a-f]+\r\n/g, "");
  const numbers = [...plain.matchAll(/"message":"(\d+) x/g)].map((match) => Number(match[1]));
  const ids = [...plain.matchAll(/^id: (\d+)\nevent: VM_/gm)].map((match) => match[1] ?? "");
  return { numbers, lastId: ids.at(-1) ?? "", end: text.slice(-400) };
}

test("a client that does not read is cut off with a message and an orderly end, and resumes by Last-Event-ID without a loss", async () => {
  const hub = new WatchedHub(store, BACKLOG);
  const api = await openApi(hub);
  const socket = await ask(api.address);
  let published = 0;
  const publish = (count: number) =>
    store.together(() => {
      for (let index = 0; index < count; index += 1) {
        const message = `${published++} ${"x".repeat(20_000)}`;
        hub.publish({ type: "VM_UPDATED", name: "a", timestamp: new Date().toISOString(), message });
      }
    });
  // More than all buffers between here and there take, and a backlog on top; the engine that publishes never waits.
  const [reader] = subscriptions;
  let before = -1;
  for (let round = 0; round < 200 && before !== reader?.position; round += 1) {
    before = reader?.position ?? 0;
    publish(BACKLOG - 10);
    for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  }
  assert.equal(reader?.position, before, "its socket is full");
  publish(2 * BACKLOG);
  await new Promise(setImmediate);

  const first = await readAll(socket, "event: error");
  assert.match(first.end, /event: error\ndata: \{"error":"events came faster [^\n]*","code":"rate_limited"\}\n\n/);
  assert.ok(first.numbers.length < published, `${first.numbers.length} of ${published}`);
  const again = await ask(api.address, first.lastId);
  const rest = await readAll(again, `"message":"${published - 1} x`);
  assert.deepEqual(
    [...first.numbers, ...rest.numbers],
    Array.from({ length: published }, (_none, index) => index),
    "each once, in order",
  );
  again.destroy();
  socket.destroy();
  await api.close();
});

test("a reader whose socket takes nothing for too long is cut off, and loses its connection when it does not take the end either", async () => {
  async function* items() {
    for (let id = 1; ; id += 1) {
      yield { id, event: { type: "VM_LOG" as const, name: "a", timestamp: "2026-01-01T00:00:00.000Z", line: "x" } };
    }
  }
  const source = items();
  const output = new PassThrough({ highWaterMark: 1000 });
  const closed = once(output, "close", { signal: AbortSignal.timeout(LIMIT_MS) });
  await streamEvents({
    events: { [Symbol.asyncIterator]: () => source, position: 1 },
    output,
    signal: new AbortController().signal,
    heartbeatMs: 1000,
    stallMs: 5,
    lingerMs: 5,
  });
  assert.match(String(output.read()), /event: error\ndata: \{"error":"this reader has taken nothing/);
  await closed;
  assert.equal(output.destroyed, true);
});
