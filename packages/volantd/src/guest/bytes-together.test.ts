import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type ClientHttp2Stream } from "node:http2";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { eventOf } from "../../../../test/patience.ts";
import { writeBytesTogether } from "./bytes-together.ts";

test("text and bytes that are written to a stream together arrive as they are, and in order", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "bytes-"));
  const path = join(directory, "s.sock");
  const server = createServer();
  server.on("stream", (stream) => {
    stream.respond({ ":status": 200 });
    stream.pipe(stream);
  });
  await once(server.listen(path), "listening");
  const session = connect("http://guest", { createConnection: () => connectSocket(path) });
  t.after(() => {
    session.destroy();
    server.close();
    rmSync(directory, { recursive: true });
  });
  for (let round = 0; round < 20; round += 1) {
    const stream: ClientHttp2Stream = session.request({ ":method": "POST" }, { endStream: false });
    writeBytesTogether(stream);
    await eventOf(stream, "response", "the answer");
    // As node:http writes a request whose body is there already: its head, its body, and nothing at its end.
    const head = `POST /${round} HTTP/1.1\r\nx-padding: ${"x".repeat(20 * round)}\r\n\r\n`;
    stream.cork();
    stream.write(head, "latin1");
    stream.write(Buffer.from("body"));
    stream.write("", "latin1");
    stream.uncork();
    const [arrived] = (await eventOf(stream, "data", "what was written")) as [Buffer];
    assert.equal(arrived.toString("latin1"), `${head}body`);
    stream.end();
  }
});
