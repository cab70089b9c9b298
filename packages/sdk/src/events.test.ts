/** The stream of events over connections that break: what is sent back, and what the reader gets. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import test from "node:test";
import { VolantClient } from "./index.ts";

const frame = (id: number, name: string) =>
  `id: ${id}\nevent: VM_UPDATED\ndata: {"type":"VM_UPDATED","name":"${name}","timestamp":"2026-01-01T00:00:00.000Z"}\n\n`;

/** A server whose answers are given in turn; each is cut off in the middle of what would come next. */
async function serve(answers: readonly string[]) {
  const asked: string[] = [];
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    asked.push(`${request.url} ${String(request.headers["last-event-id"])}`);
    response.writeHead(200, { "content-type": "text/event-stream" });
    const answer = answers[asked.length - 1];
    if (answer !== undefined) response.write(`${answer}id: 9999\nevent: VM_UPD`, () => response.socket?.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    asked,
    client: new VolantClient({ baseUrl: `http://127.0.0.1:${port}` }),
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

test("the stream goes on where it was: after an event, after a heartbeat that moved it, and past a gap that it tells of", async (t) => {
  const gap = 'id: 40\nevent: gap\ndata: {"after":21,"kept_after":40,"message":"some are gone"}\n\n';
  const { asked, client, close } = await serve([
    "retry: 1000\nid: 10\n\n",
    `${frame(11, "a")}${frame(12, "b")}`,
    ": heartbeat\nid: 21\n\n",
    `${gap}${frame(41, "c")}`,
  ]);
  t.after(close);
  const items: string[] = [];
  const signal = AbortSignal.timeout(60_000);
  const options = { name: ["a", "b"], since: new Date(0), signal };
  for await (const event of client.events({ ...options, onGap: ({ message }) => void items.push(message) })) {
    items.push(`${event.id} ${event.name}`);
    if (event.name === "c") break;
  }
  assert.deepEqual(items, ["11 a", "12 b", "some are gone", "41 c"]);
  const url = "/api/v1/events/vms?name=a&name=b&since=1970-01-01T00%3A00%3A00.000Z";
  assert.deepEqual(asked, [`${url} undefined`, `${url} 10`, `${url} 12`, `${url} 21`]);
});
