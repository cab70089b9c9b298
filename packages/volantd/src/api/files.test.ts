/** Files of guests over real HTTP. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { buffer, json } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { VolantError } from "@volant/contract";
import { rawRequest } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
before(async () => {
  running = await runApi();
  await running.useCases.vms.create({ name: "web" });
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

const files = "/api/v1/vms/web/files";

test("what is written is read again, as an archive with its own media type", async () => {
  const body = Buffer.alloc(300_000, 7);
  const put = await fetch(`${running.address}${files}?path=/a%20b&mode=600`, {
    method: "PUT",
    headers: { "content-type": "application/octet-stream" },
    body,
  });
  assert.deepEqual([put.status, await put.json()], [200, { files: 1, bytes: body.length, left_out: 0 }]);
  const got = await fetch(`${running.address}${files}?path=/a%20b`);
  assert.equal(got.headers.get("content-type"), "application/x-tar");
  assert.equal(got.headers.get("x-content-type-options"), "nosniff");
  assert.ok(Buffer.from(await got.arrayBuffer()).equals(body));
});

test("what is no request for a file is refused by name", async () => {
  const octets = { "content-type": "application/octet-stream" };
  const cases: [method: string, path: string, headers: Record<string, string>, status: number, sentence: RegExp][] = [
    ["GET", files, {}, 400, /lacks "path"/],
    ["GET", `${files}?path=etc`, {}, 400, /must start with|path/],
    ["GET", `${files}?path=/a%00b`, {}, 400, /path/],
    ["GET", `${files}?path=/none`, {}, 404, /has no file/],
    ["GET", "/api/v1/vms/none/files?path=/a", {}, 404, /no VM/],
    ["PUT", `${files}?path=/a&mode=9`, octets, 400, /mode/],
    ["PUT", `${files}?path=/a`, { "content-type": "application/json" }, 400, /no file/],
    ["PUT", `${files}?path=/a`, { "content-type": "text/plain" }, 400, /content type/],
  ];
  for (const [method, path, headers, status, sentence] of cases) {
    const answer = await rawRequest(running.address, path, {
      method,
      headers,
      ...(method === "PUT" ? { body: "{}" } : {}),
    });
    assert.equal(answer.status, status, `${method} ${path}: ${answer.text}`);
    assert.match((answer.json as { error: string }).error, sentence);
  }
});

test("a guest that is full is said while the client still sends", async () => {
  const outgoing = request(`${running.address}${files}?path=/full`, {
    method: "PUT",
    agent: false,
    headers: { "content-type": "application/octet-stream", "transfer-encoding": "chunked" },
  });
  outgoing.on("error", () => {});
  outgoing.write(Buffer.alloc(64 * 1024));
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  assert.deepEqual([answer.statusCode, ((await json(answer)) as { code: string }).code], [503, "exhausted"]);
  outgoing.destroy();
});

test("a file that breaks off takes the connection with it", async (context) => {
  context.mock.method(running.useCases.files, "read", async () =>
    Readable.from(
      (async function* () {
        yield Buffer.from("half");
        await new Promise(setImmediate);
        throw new VolantError("guest_unreachable", "gone");
      })(),
    ),
  );
  const outgoing = request(`${running.address}${files}?path=/x`, { agent: false }).end();
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  await assert.rejects(buffer(answer), { code: "ECONNRESET" });
  context.mock.restoreAll();
});

test("a client that goes away in the middle of a file stops the guest from sending it", async (context) => {
  const stopped = Promise.withResolvers<void>();
  context.mock.method(running.useCases.files, "read", async (_name: string, _path: string, signal: AbortSignal) => {
    signal.addEventListener("abort", () => stopped.resolve());
    return new Readable({ read: () => {} });
  });
  const outgoing = request(`${running.address}${files}?path=/x`, { agent: false }).end();
  outgoing.on("error", () => {});
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  answer.destroy();
  await stopped.promise;
  context.mock.restoreAll();
});
