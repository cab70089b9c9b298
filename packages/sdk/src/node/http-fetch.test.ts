/** The SDK on Node's HTTP client, over TCP, TLS and a Unix socket: every kind of call that it makes. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import { connect, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { createServer as createTlsServer, getCACertificates, setDefaultCACertificates } from "node:tls";
import { ANSWERED_BY_HEADER } from "@volant/contract/endpoints";
import { VolantError } from "@volant/contract/errors";
import { runApi, type RunningApi } from "../../../volantd/src/api/testing/running-api.ts";
import { VolantClient } from "../client.ts";
import { GuestStreams } from "./index.ts";
import { transportOptions } from "./http-fetch.ts";

const WAYS = ["TCP", "TLS", "a Unix socket"] as const;
type Way = (typeof WAYS)[number];

let directory: string;
let running: RunningApi;
let tlsServer: Server;
/** volantd's address by each way. */
const addresses = {} as Record<Way, string>;
const apiKey = "of the test";

/** A certificate for localhost that nobody but this process trusts, and its key. */
function makeCertificate(): { readonly cert: Buffer; readonly key: Buffer } {
  const [cert, key] = [join(directory, "cert.pem"), join(directory, "key.pem")];
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  const whose = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  execFileSync("openssl", ["req", ...kind, ...whose, "-keyout", key, "-out", cert], { stdio: "pipe" });
  return { cert: readFileSync(cert), key: readFileSync(key) };
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "http-fetch-"));
  const socketPath = join(directory, "api.sock");
  running = await runApi({ socketPath, apiKey });
  const certificate = makeCertificate();
  setDefaultCACertificates([...getCACertificates("default"), certificate.cert.toString()]);
  // As a proxy in front of volantd does it.
  tlsServer = createTlsServer(certificate, (socket) => {
    const onward = connect(Number(new URL(running.address).port), "127.0.0.1");
    for (const [from, to] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      from.on("error", () => to.destroy()).on("close", () => to.destroy());
      from.pipe(to);
    }
  }).listen(0);
  await once(tlsServer, "listening");
  addresses.TCP = running.address;
  addresses.TLS = `https://localhost:${portOf(tlsServer)}`;
  addresses["a Unix socket"] = `unix:${socketPath}`;
});
after(async () => {
  tlsServer.close();
  await running.api.close();
  rmSync(directory, { recursive: true, force: true });
  assert.deepEqual(running.errors, []);
});

for (const [index, way] of WAYS.entries()) {
  const open = (): VolantClient => new VolantClient(transportOptions({ baseUrl: addresses[way], apiKey }));

  test(`over ${way}: calls, lists with a count, refusals and answers without a body`, async () => {
    const volant = open();
    const name = `one-${index}`;
    const vm = await volant.vms.create({ name, memory_mb: 256 });
    assert.deepEqual([vm.name, (await volant.vms.list({ q: name })).total], [name, 1]);
    await assert.rejects(volant.vms.get("none"), (error) => error instanceof VolantError && error.code === "not_found");
    await volant.vms.delete(name);
    assert.equal(await volant.images.has(`sha256:${"0".repeat(64)}`), false);
  });

  test(`over ${way}: uploads, whole and as they come, and downloads`, async () => {
    const volant = open();
    const bytes = Buffer.alloc(300_000, `volant ${index}`);
    const checksum = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    async function* pieces() {
      for (let at = 0; at < bytes.length; at += 10_000) yield bytes.subarray(at, at + 10_000);
    }
    await volant.images.put(checksum, pieces());
    assert.equal(await volant.images.has(checksum), true);
    await volant.images.put(checksum, new Blob([bytes]));
    assert.match(await text(await volant.system.backup()), /^SQLite format 3/);
  });

  test(`over ${way}: an upload whose source fails fails with the source's own error`, async () => {
    async function* broken() {
      yield Buffer.alloc(10);
      throw new VolantError("invalid", "the disk is gone");
    }
    await assert.rejects(open().images.put(`sha256:${"0".repeat(64)}`, broken()), /the disk is gone/);
  });

  test(`over ${way}: events as they come, until the reader stops`, async () => {
    const volant = open();
    const stop = new AbortController();
    const name = `told-${index}`;
    await volant.vms.create({ name });
    const seen: string[] = [];
    await assert.rejects(async () => {
      for await (const event of volant.events({ afterId: 0, signal: stop.signal })) {
        seen.push(event.name);
        if (event.name === name) stop.abort(new Error("enough"));
      }
    }, /enough/);
    assert.equal(seen.at(-1), name);
  });

  test(`over ${way}: streams into guests`, async () => {
    await open().vms.create({ name: `reached-${index}` });
    const server = (await import("node:net")).createServer((socket) => socket.end("hello")).listen(0, "127.0.0.1");
    await once(server, "listening");
    const streams = new GuestStreams({ baseUrl: addresses[way], apiKey });
    const stream = await streams.forward(`reached-${index}`, portOf(server));
    assert.equal(Buffer.concat(await stream.toArray()).toString(), "hello");
    server.close();
  });
}

/** A server that is not volantd, at a Unix socket of its own. */
async function runStranger(answer: (response: ServerResponse) => void): Promise<{ baseUrl: string; server: Server }> {
  const path = join(directory, `stranger-${Math.random()}.sock`);
  const server = createServer((_request, response) => answer(response)).listen(path);
  await once(server, "listening");
  return { baseUrl: `unix:${path}`, server };
}

test("nobody at the address, no such socket and a relative path are said by the address", async () => {
  const nobody = createServer().listen(0, "127.0.0.1");
  await once(nobody, "listening");
  const closed = `127.0.0.1:${portOf(nobody)}`;
  nobody.close();
  for (const none of [`unix:${join(directory, "none.sock")}`, `http://${closed}`, `https://${closed}`]) {
    const client = new VolantClient(transportOptions({ baseUrl: none }));
    await assert.rejects(client.system.status(), (error) => {
      assert.ok(error instanceof VolantError);
      assert.equal(error.message, `volantd does not answer at ${none}: is it running?`);
      return error.hint?.startsWith("start it with volantd") === true;
    });
    await assert.rejects(new GuestStreams({ baseUrl: none }).exec("x", { argv: ["true"] }), /does not answer at/);
  }
  assert.throws(() => transportOptions({ baseUrl: "unix:api.sock" }), /no absolute path/);
  assert.throws(() => transportOptions({ baseUrl: "ftp://x" }), /no URL like/);
  assert.throws(() => new VolantClient({ baseUrl: "unix:/x" }), /needs Node/);
});

test("a certificate that is not trusted is no volantd's", async () => {
  const client = new VolantClient(transportOptions({ baseUrl: addresses.TLS.replace("localhost", "127.0.0.1") }));
  await assert.rejects(client.system.status(), /does not answer/);
});

test("a redirect is not followed: whoever sends one is not volantd", async () => {
  const { baseUrl, server } = await runStranger((response) => {
    response.writeHead(302, { location: "http://127.0.0.1:1/" }).end();
  });
  await assert.rejects(
    new VolantClient(transportOptions({ baseUrl, apiKey: "secret" })).system.status(),
    /does not answer/,
  );
  server.close();
});

test("events go on after a connection that broke in the middle of them", async () => {
  let connections = 0;
  const { baseUrl, server } = await runStranger((response) => {
    connections += 1;
    const data = JSON.stringify({ type: "VM_RUNNING", name: `after-${connections}` });
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(`id: ${connections}\nevent: VM_RUNNING\ndata: ${data}\n\n`, () => response.destroy());
  });
  const seen: string[] = [];
  for await (const event of new VolantClient(transportOptions({ baseUrl })).events()) {
    seen.push(event.name);
    if (seen.length === 2) break;
  }
  assert.deepEqual(seen, ["after-1", "after-2"]);
  server.close();
});

test("an answer that is given up in its middle ends with the signal's reason, and one that never comes too", async () => {
  const { baseUrl, server } = await runStranger((response) => void response.write("SQLite"));
  const stop = new AbortController();
  const content = await new VolantClient(transportOptions({ baseUrl })).system.backup({ signal: stop.signal });
  const reading = text(content);
  stop.abort(new Error("enough"));
  await assert.rejects(reading, /enough/);
  const gone = { signal: AbortSignal.abort(new Error("too late")) };
  await assert.rejects(new VolantClient(transportOptions({ baseUrl })).system.status(gone), /too late/);
  server.close();
});

test("an answer of another protocol, which nobody asked for, is none", async () => {
  const { baseUrl, server } = await runStranger((response) => {
    response.socket?.end("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
  });
  await assert.rejects(new VolantClient(transportOptions({ baseUrl })).system.status(), /does not answer/);
  server.close();
});

test("a workload's own redirect is its answer, and the body of a DELETE arrives whole", async () => {
  const { baseUrl, server } = await runStranger((response) => {
    void text(response.req).then((body) => {
      response.writeHead(302, { location: "/elsewhere", [ANSWERED_BY_HEADER]: "web-1" }).end(`${body.length} bytes`);
    });
  });
  const { workloads } = new VolantClient(transportOptions({ baseUrl }));
  const answer = await workloads.request("web-1", "/things", { method: "DELETE", body: "x".repeat(100) });
  assert.deepEqual([answer.status, answer.headers.get("Location")], [302, "/elsewhere"]);
  assert.equal(await answer.text(), "100 bytes");
  server.close();
});
