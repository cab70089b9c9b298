/** Programs in guests over a WebSocket, as its client sees it on the wire. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import test, { after, before } from "node:test";
import { encodeExecFrame, encodeExecStart, EXEC_FRAME, ExecFrameDecoder, MIN_WINDOW_BYTES } from "@volant/contract";
import { WebSocket } from "ws";
import { eventOf, until } from "../../../../test/patience.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
/** The host's ends of the exec streams that were opened. */
const streams: Duplex[] = [];

before(async () => {
  running = await runApi({ apiKey: "k" });
  const { reach } = running.useCases;
  const exec = reach.exec.bind(reach);
  reach.exec = async (name, signal) => {
    const stream = await exec(name, signal);
    streams.push(stream);
    return stream;
  };
  await running.useCases.vms.create({ name: "web" });
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

const headers = { "x-volant-api-key": "k" };
const webSocket = (query = "", name = "web", given: object = { headers }) =>
  new WebSocket(`${running.address.replace("http", "ws")}/ws/v1/vms/${name}/exec${query}`, given);

/** What a client has received. */
interface Received {
  readonly client: WebSocket;
  readonly output: () => string;
  readonly kinds: () => number[];
  readonly bytes: () => number;
  readonly texts: string[];
}

async function open(query = ""): Promise<Received> {
  const client = webSocket(query);
  const decoder = new ExecFrameDecoder();
  const kinds: number[] = [];
  const texts: string[] = [];
  let [output, bytes] = ["", 0];
  client.on("message", (data: Buffer, isBinary: boolean) => {
    if (!isBinary) return void texts.push(String(data));
    bytes += data.length;
    for (const { kind, payload } of decoder.feed(data)) {
      kinds.push(kind);
      if (kind === EXEC_FRAME.stdout) output += Buffer.from(payload).toString();
    }
  });
  await eventOf(client, "open", "an open WebSocket");
  return { client, output: () => output, kinds: () => kinds, bytes: () => bytes, texts };
}

const start = (...argv: string[]) => encodeExecStart({ argv });
const stdin = (text: string) => encodeExecFrame(EXEC_FRAME.stdin, Buffer.from(text));

test("frames go both ways in messages that are cut anywhere, and the connection ends in order after the last frame", async () => {
  for (const query of ["", `?window=${MIN_WINDOW_BYTES}`]) {
    const { client, output, kinds } = await open(query);
    const closed = once(client, "close");
    const bytes = Buffer.concat([start("cat"), stdin("one "), stdin("two"), stdin("")]);
    for (let at = 0; at < bytes.length; at += 7) client.send(bytes.subarray(at, at + 7));
    assert.equal((await closed)[0], 1000);
    assert.equal(output(), "one two");
    assert.equal(kinds().at(-1), EXEC_FRAME.exit);
  }
});

test("a reader that says nothing of what it took gets a window's worth, and the rest as it says so", async () => {
  const { client, bytes } = await open(`?window=${MIN_WINDOW_BYTES}`);
  client.send(start("flood"));
  await until("the window is used up", () => bytes() === MIN_WINDOW_BYTES);
  // What would come beyond it had come before the answer to this ping.
  client.ping();
  await eventOf(client, "pong", "an answer to a ping");
  assert.equal(bytes(), MIN_WINDOW_BYTES);
  client.send(JSON.stringify({ taken: 1000 }));
  await until("as much more came", () => bytes() === MIN_WINDOW_BYTES + 1000);
  client.close();
  await until("the program is gone", () => streams.at(-1)?.destroyed === true);
});

test("volantd says what the program took, and a program that takes nothing is sent no more than the window", async () => {
  const { client, texts, output } = await open(`?window=${MIN_WINDOW_BYTES}`);
  client.send(start("cat"));
  const frame = encodeExecFrame(EXEC_FRAME.stdin, Buffer.alloc(MIN_WINDOW_BYTES / 4, "x"));
  for (let at = 0; at < frame.length; at += 16_384) client.send(frame.subarray(at, at + 16_384));
  await until("volantd tells of it", () => texts.length > 0);
  const { taken } = JSON.parse(texts[0] ?? "") as { taken: number };
  assert.ok(taken >= MIN_WINDOW_BYTES / 4 && taken <= frame.length + 100, texts[0]);
  await until("the program has it", () => output().length === MIN_WINDOW_BYTES / 4);
  client.terminate();

  const deaf = await open(`?window=${MIN_WINDOW_BYTES}`);
  streams.at(-1)?.cork();
  const closed = once(deaf.client, "close");
  for (let sent = 0; sent <= MIN_WINDOW_BYTES; sent += 65_536) deaf.client.send(Buffer.alloc(65_536));
  assert.deepEqual((await closed).map(String), ["1008", "more bytes than the window allows"]);
});

test("a text message that is no count, a message that is too long and words without a window end the connection", async () => {
  for (const [query, message, code] of [
    [`?window=${MIN_WINDOW_BYTES}`, "nonsense", 1008],
    [`?window=${MIN_WINDOW_BYTES}`, '{"taken":1}', 1008],
    ["", '{"taken":0}', 1008],
    ["", Buffer.alloc(65_537), 1009],
  ] as const) {
    const { client } = await open(query);
    const closed = once(client, "close");
    client.send(message);
    assert.equal((await closed)[0], code, String(message).slice(0, 20));
    await until("the stream is let go of", () => streams.at(-1)?.destroyed === true);
  }
});

test("it passes the gates of every request: key, scope, origin, and nothing in the query but a window", async () => {
  const refused = async (client: WebSocket): Promise<number> => {
    client.on("error", () => {});
    const [, answer] = (await once(client, "unexpected-response")) as [unknown, { statusCode: number }];
    client.terminate();
    return answer.statusCode;
  };
  const { key: reader } = await running.useCases.keys.create({ name: "reader", scope: "read" });
  const opened = streams.length;
  assert.equal(await refused(webSocket("", "web", {})), 401);
  assert.equal(await refused(webSocket("", "web", { headers: { "x-volant-api-key": reader } })), 403);
  assert.equal(await refused(webSocket("", "web", { headers: { ...headers, origin: "http://evil.example" } })), 403);
  assert.equal(await refused(webSocket("?window=1")), 400);
  assert.equal(await refused(webSocket(`?window=${MIN_WINDOW_BYTES}&tty=1`)), 400);
  assert.equal(await refused(webSocket("?api_key=k")), 400);
  assert.equal(streams.length, opened, "nothing was asked of a guest");
  assert.equal(await refused(webSocket("", "none")), 404);
  const protocols = ["volant.v1", `volant.key.${Buffer.from("k").toString("base64url")}`];
  const client = new WebSocket(`${running.address.replace("http", "ws")}/ws/v1/vms/web/exec`, protocols);
  await eventOf(client, "open", "a WebSocket whose key is a subprotocol");
  assert.equal(client.protocol, "volant.v1");
  client.terminate();
  await until("it is in the audit log", () => running.audited.some(({ status }) => status === 101));
  assert.doesNotMatch(JSON.stringify(running.audited), /volant\.key/);
});
