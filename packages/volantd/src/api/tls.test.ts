/** The API over TLS, with real certificates and connections. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { connect, type TLSSocket } from "node:tls";
import test, { after, before } from "node:test";
import { VolantError } from "@volant/contract";
import { eventOf, PATIENCE_MS, within } from "../../../../test/patience.ts";
import { rawRequest } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";
import { selfSigned } from "./testing/self-signed.ts";
import { readTls, watchTls } from "./tls-files.ts";

let directory: string;
let tls: { certPath: string; keyPath: string };
let running: RunningApi;
const first = selfSigned("first");

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "tls-"));
  tls = { certPath: join(directory, "cert.pem"), keyPath: join(directory, "key.pem") };
  put(first);
  running = await runApi({ tls });
});
after(async () => {
  await running.api.close();
  rmSync(directory, { recursive: true, force: true });
});

/** As a tool that renews certificates does: each file at once, one after the other. */
function put({ cert, key }: { cert?: string; key?: string }): void {
  for (const [path, content] of [
    [tls.certPath, cert],
    [tls.keyPath, key],
  ] as const) {
    if (content === undefined) continue;
    writeFileSync(`${path}.new`, content);
    renameSync(`${path}.new`, path);
  }
}

async function ask(
  path: string,
  ca: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<[number, string]> {
  const outgoing = request(`${running.address}${path}`, { ca, headers, servername: "localhost", agent: false }).end();
  const [answer] = await eventOf(outgoing, "response", `an answer to ${path}`);
  const incoming = answer as { statusCode?: number } & Parameters<typeof text>[0];
  return [incoming.statusCode ?? 0, await text(incoming)];
}

test("clients that know the certificate are served, as over HTTP, and see the scheme in the address", async () => {
  assert.match(running.address, /^https:\/\/127\.0\.0\.1:\d+$/);
  assert.deepEqual(await ask("/healthz", first.cert), [200, '{"status":"ok"}']);
  assert.equal((await ask("/healthz", first.cert, { host: "evil.example" }))[0], 403);
  await assert.rejects(ask("/healthz", selfSigned("other").cert), /self-signed|unable to verify/);
});

test("plain HTTP is not served on that port, and old versions of TLS are not spoken", async () => {
  await assert.rejects(rawRequest(running.address.replace("https", "http"), "/healthz"));
  const { port } = new URL(running.address);
  const old = {
    host: "127.0.0.1",
    port: Number(port),
    ca: first.cert,
    maxVersion: "TLSv1.1",
    minVersion: "TLSv1",
  } as const;
  const socket = connect({ ...old, ciphers: "DEFAULT@SECLEVEL=0" });
  await assert.rejects(eventOf(socket, "secureConnect", "a handshake"));
});

test("a stream is upgraded over TLS", async () => {
  await running.useCases.vms.create({ name: "web" });
  const headers = { connection: "Upgrade", upgrade: "volant-stream" };
  const url = `${running.address}/api/v1/vms/web/exec`;
  const outgoing = request(url, { method: "POST", ca: first.cert, headers, agent: false }).end();
  const [answer, socket] = (await within(once(outgoing, "upgrade"), "an upgrade")) as [
    { statusCode: number },
    TLSSocket,
  ];
  assert.equal(answer.statusCode, 101);
  socket.destroy();
});

test("a renewed certificate is in use without a restart, and one that does not fit its key is not", async () => {
  const told: string[] = [];
  const note = (_: object, message: string) => void told.push(message);
  const log = { info: note, warn: note, error: note };
  const used: string[] = [];
  const stop = watchTls(tls, log, ({ cert }) => void used.push(cert.toString()), 20);
  const until = async (what: string, holds: () => boolean) => {
    const deadline = performance.now() + PATIENCE_MS;
    while (!holds()) {
      assert.ok(performance.now() < deadline, `${what}: ${told.join("; ")}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const second = selfSigned("second");
  put({ cert: second.cert });
  await until("the halves are told not to fit", () => told.some((message) => message.includes("can't be used")));
  assert.deepEqual(used, []);
  put({ key: second.key });
  await until("the second is in use", () => used.at(-1) === second.cert);
  stop();
  // And so it is with the server's own watch.
  const served = async () => {
    for (;;) {
      const answer = await ask("/healthz", second.cert).catch(() => undefined);
      if (answer !== undefined) return answer;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  assert.equal((await within(served(), "the server's second certificate"))[0], 200);
});

test("files that can't be used are refused by the name of their setting", () => {
  const other = selfSigned("other");
  const path = (name: string, content: string) => {
    writeFileSync(join(directory, name), content);
    return join(directory, name);
  };
  const good = { certPath: path("good.pem", first.cert), keyPath: path("good.key", first.key) };
  assert.ok(readTls(good).cert.length > 0);
  const cases: [changes: Partial<typeof good>, sentence: RegExp][] = [
    [{ certPath: join(directory, "none.pem") }, /^VOLANT_TLS_CERT is .*none\.pem, which can't be read/],
    [{ keyPath: join(directory, "none.key") }, /^VOLANT_TLS_KEY is .*none\.key, which can't be read/],
    [{ certPath: path("text.pem", "hello") }, /^VOLANT_TLS_CERT .* no certificate/],
    [{ keyPath: path("text.key", "hello") }, /^VOLANT_TLS_KEY .* no private key/],
    [{ keyPath: path("other.key", other.key) }, /^VOLANT_TLS_KEY .* not the key of the certificate/],
  ];
  for (const [changes, sentence] of cases) {
    assert.throws(
      () => readTls({ ...good, ...changes }),
      (error) => error instanceof VolantError && error.code === "invalid" && sentence.test(error.message),
    );
  }
});
