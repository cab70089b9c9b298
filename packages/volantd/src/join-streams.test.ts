import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import test, { type TestContext } from "node:test";
import { within } from "../../../test/patience.ts";
import { joinStreams } from "./join-streams.ts";

/** Both ends of a connection to a server. */
async function pair(context: TestContext, server: Server, where: { path: string } | "tcp"): Promise<[Socket, Socket]> {
  server.listen(where === "tcp" ? { port: 0, host: "127.0.0.1" } : where);
  await once(server, "listening");
  context.after(() => server.close());
  const port = (server.address() as AddressInfo).port;
  const client = connect(where === "tcp" ? { port, host: "127.0.0.1" } : where);
  client.on("error", () => {});
  const [served] = (await once(server, "connection")) as [Socket];
  return [client, served];
}

for (const kind of ["TCP", "Unix"] as const) {
  test(`a client over a ${kind} socket that goes away breaks the other side, and the other way round, and nothing is thrown`, async (context) => {
    const directory = mkdtempSync(join(tmpdir(), "join-"));
    context.after(() => rmSync(directory, { recursive: true }));
    for (const broken of ["client", "guest"] as const) {
      const where = kind === "TCP" ? "tcp" : { path: join(directory, broken) };
      const [client, served] = await pair(context, createServer({ allowHalfOpen: true }), where);
      const guest = new PassThrough();
      // Their errors are part of it.
      const gone = [client, guest].map(
        (side) => new Promise((resolve) => side.on("error", () => {}).once("close", resolve)),
      );
      joinStreams(served, guest);
      if (broken === "client") client.destroy();
      else guest.destroy(new Error("the guest is gone"));
      if (broken === "client") served.destroy(new Error("seen by a write"));
      await within(Promise.all(gone), "the end of both sides");
      assert.ok(served.destroyed && guest.destroyed);
    }
  });
}
