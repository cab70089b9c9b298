/** The bounds of tests' waits: that what never comes ends a wait, and how. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { PassThrough } from "node:stream";
import test from "node:test";
import { eventOf, fetchInTime, within } from "./patience.ts";

test("a wait for what never comes ends with what was seen instead; what comes is passed on, value or error", async () => {
  const never = new Promise(() => {});
  await assert.rejects(
    within(never, "a word", () => "silence", 1),
    { message: "a word: not within 1 ms; seen: silence" },
  );
  assert.equal(await within(Promise.resolve(7), "a number"), 7);
  await assert.rejects(within(Promise.reject(new Error("broken")), "a number"), { message: "broken" });
});

test("a stream that ends does not keep its reader waiting for data", async () => {
  const stream = new PassThrough();
  const data = eventOf(stream, "data", "a greeting");
  stream.end();
  await assert.rejects(data, { message: 'a greeting: "end" came instead of "data"' });
  const other = new PassThrough();
  const greeted = eventOf(other, "data", "a greeting");
  other.write("hello");
  assert.equal(String((await greeted)[0]), "hello");
  assert.deepEqual([other.listenerCount("end"), other.listenerCount("close"), other.listenerCount("data")], [0, 0, 0]);
});

test("an answer whose body never ends is given up, with its address", async () => {
  const server = createServer((_request, response) => void response.write("begun"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/page`;
  const answer = fetchInTime(url, {}, 500).then((response) => response.text());
  await assert.rejects(answer, { message: `GET ${url}: not within 500 ms; seen: no whole answer` });
  server.closeAllConnections();
  server.close();
});
