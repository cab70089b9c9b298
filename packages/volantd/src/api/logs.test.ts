/** Logs over server-sent events and WebSocket, as programs and browsers read them. */
import assert from "node:assert/strict";
import { once } from "node:events";
import test, { after, before } from "node:test";
import { VolantError } from "@volant/contract";
import { WebSocket } from "ws";
import type { StoredLogLine } from "../engine/use-cases.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

const timestamp = "2026-01-01T00:00:00.000Z";
let running: RunningApi;
before(async () => {
  running = await runApi({ apiKey: "k", corsOrigins: ["http://console.example"] });
  await running.useCases.vms.create({ name: "web" });
  for (const line of ["one", "two", "three"]) running.logLines.push({ name: "web", stream: "stdout", line, timestamp });
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

const file = "0".repeat(16);
const key = { "X-Volant-API-Key": "k" };

async function readText(query: string, headers: Record<string, string> = {}): Promise<[number, string]> {
  const answer = await fetch(`${running.address}/api/v1/vms/web/logs${query}`, { headers: { ...key, ...headers } });
  return [answer.status, await answer.text()];
}

test("a log is sent as events with ids, and says that it is over", async () => {
  const [status, text] = await readText("?tail=1");
  assert.equal(status, 200);
  const line = JSON.stringify({ name: "web", stream: "stdout", line: "three", timestamp });
  assert.equal(text, `retry: 1000\n\nid: ${file}-3\ndata: ${line}\n\nevent: end\ndata: {}\n\n`);
  assert.match((await readText("", { "Last-Event-ID": `${file}-1` }))[1], /"two"[^]*"three"/);
  assert.doesNotMatch((await readText("", { "Last-Event-ID": `${file}-1` }))[1], /"one"/);
});

test("what is no request for a log is refused", async () => {
  for (const [query, headers] of [
    ["?tail=x", {}],
    ["?tail=-1", {}],
    ["?follow=maybe", {}],
    ["?other=1", {}],
    ["", { "Last-Event-ID": "x" }],
  ] as const) {
    assert.equal((await readText(query, headers))[0], 400, query);
  }
  const none = await fetch(`${running.address}/api/v1/vms/none/logs`, { headers: key });
  assert.equal(none.status, 404);
  const plain = await fetch(`${running.address}/ws/v1/vms/web/logs`, { headers: key });
  assert.equal(plain.status, 400);
});

function socket(query = "", options: { protocols?: string[]; headers?: Record<string, string> } = {}): WebSocket {
  const url = `${running.address.replace("http", "ws")}/ws/v1/vms/web/logs${query}`;
  return new WebSocket(url, options.protocols ?? [], { headers: options.headers ?? key });
}

async function messages(client: WebSocket): Promise<{ lines: unknown[]; code: number; reason: string }> {
  const lines: unknown[] = [];
  client.on("message", (data: Buffer) => lines.push((JSON.parse(data.toString()) as { line: string }).line));
  const [code, reason] = (await once(client, "close")) as [number, Buffer];
  return { lines, code, reason: reason.toString() };
}

/** The status that an upgrade was refused with. */
async function refused(client: WebSocket): Promise<number> {
  client.on("error", () => {});
  const [, answer] = (await once(client, "unexpected-response")) as [unknown, { statusCode: number }];
  client.terminate();
  return answer.statusCode;
}

test("a WebSocket gets the lines, one message each", async () => {
  assert.deepEqual(await messages(socket("?tail=2&follow=false")), { lines: ["two", "three"], code: 1000, reason: "" });
  const following = socket();
  const [first] = (await once(following, "message")) as [Buffer];
  assert.deepEqual(JSON.parse(first.toString()), { name: "web", stream: "stdout", line: "one", timestamp });
  following.close();
  await once(following, "close");
});

test("a browser gives the key as a subprotocol, and agrees on the other one", async () => {
  const origin = { origin: "http://console.example" };
  const protocols = ["volant.v1", `volant.key.${Buffer.from("k").toString("base64url")}`];
  const client = socket("?follow=false", { protocols, headers: origin });
  const [[answer]] = (await Promise.all([once(client, "upgrade"), messages(client)])) as [
    [{ headers: Record<string, string> }],
    unknown,
  ];
  assert.equal(answer.headers["sec-websocket-protocol"], "volant.v1");
});

test("a WebSocket passes the gates of every request", async () => {
  assert.equal(await refused(socket("", { headers: {} })), 401);
  assert.equal(await refused(socket("", { headers: {}, protocols: ["volant.v1", "volant.key.eA"] })), 401);
  assert.equal(await refused(socket("", { headers: { ...key, origin: "http://evil.example" } })), 403);
  assert.equal(await refused(socket("", { headers: { ...key, host: "evil.example" } })), 403);
  assert.equal(await refused(socket("?tail=x")), 400);
  const none = `${running.address.replace("http", "ws")}/ws/v1/vms/none/logs`;
  assert.equal(await refused(new WebSocket(none, { headers: key })), 404);
});

test("a reader that was too slow is told so when it is cut off", async (context) => {
  const line = { name: "web", stream: "stdout" as const, line: "one", timestamp };
  context.mock.method(running.useCases.logs, "read", async function* (): AsyncGenerator<StoredLogLine> {
    yield { line, cursor: `${file}-1` };
    throw new VolantError("rate_limited", "too slow");
  });
  assert.deepEqual(await messages(socket()), { lines: ["one"], code: 1013, reason: "too slow" });
  assert.match((await readText("?follow=true"))[1], /event: error\ndata: \{"error":"too slow","code":"rate_limited"\}/);
  context.mock.restoreAll();
});

test("closing the API ends what follows a log", async () => {
  const own = await runApi();
  await own.useCases.vms.create({ name: "web" });
  const client = new WebSocket(`${own.address.replace("http", "ws")}/ws/v1/vms/web/logs`);
  client.on("error", () => {});
  await once(client, "open");
  const answer = await fetch(`${own.address}/api/v1/vms/web/logs?follow=true`);
  const closed = once(client, "close");
  const ended = answer.text();
  await own.api.close();
  await Promise.all([closed, ended]);
});
