/** The Unix socket: who may open it, and whose place it takes. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { VolantError } from "@volant/contract";
import { within } from "../../../../test/patience.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let directory: string;
let path: string;

before(() => {
  directory = mkdtempSync(join(tmpdir(), "local-socket-"));
  path = join(directory, "api.sock");
});
after(() => rmSync(directory, { recursive: true, force: true }));

async function ask(target: string, headers: Readonly<Record<string, string>> = {}): Promise<[number, unknown]> {
  const { promise, resolve, reject } = Promise.withResolvers<[number, unknown]>();
  request({ socketPath: path, path: target, headers: { host: "localhost", ...headers }, agent: false })
    .once("error", reject)
    .once("response", (answer) => resolve(json(answer).then((body) => [answer.statusCode ?? 0, body])))
    .end();
  return within(promise, `an answer on ${path}`);
}

async function withApi(work: (running: RunningApi) => Promise<void>): Promise<void> {
  const running = await runApi({ socketPath: path, apiKey: "a-key-for-tcp", allowCidrs: ["192.0.2.0/24"] });
  try {
    await work(running);
  } finally {
    await running.api.close();
  }
}

test("the socket opens for its owner alone, who needs no key and is held to no network; it goes when the API does", async () => {
  await withApi(async ({ audited }) => {
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(directory), ["api.sock"], "nothing of how it was made is left");
    assert.equal((await ask("/api/v1/system/status"))[0], 200);
    assert.equal((await ask("/api/v1/keys"))[0], 200);
    assert.equal((await ask("/api/v1/keys", { "x-volant-api-key": "wrong" }))[0], 401, "who gives a key has that key");
    assert.equal((await ask("/api/v1/keys", { host: "evil.example" }))[0], 403);
    assert.deepEqual(
      audited.map(({ who, from, status }) => [who, from, status]),
      [
        ["root", "unix", 200],
        [undefined, "unix", 401],
        [undefined, "unix", 403],
      ],
    );
  });
  assert.equal(existsSync(path), false);
});

test(
  "another user can't open it",
  { skip: process.getuid?.() !== 0 && "only root can become another user" },
  async () => {
    await withApi(async () => {
      chmodSync(directory, 0o755);
      const script = `require("node:net").connect(${JSON.stringify(path)}).on("error", (e) => console.log(e.code))`;
      const { stdout } = spawnSync(process.execPath, ["-e", script], {
        uid: 65_534,
        gid: 65_534,
        cwd: "/",
        encoding: "utf8",
      });
      assert.equal(stdout.trim(), "EACCES");
    });
  },
);

test("a socket that nobody answers at is replaced; one that is answered, and a file, are left alone", async () => {
  // What a process leaves behind that was killed.
  const code = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
  spawnSync(process.execPath, ["-e", code]);
  assert.ok(statSync(path).isSocket());
  await withApi(async () => {
    assert.equal((await ask("/healthz"))[0], 200);
    const refused = runApi({ socketPath: path });
    await assert.rejects(refused, (error) => error instanceof VolantError && error.code === "in_use");
    assert.equal((await ask("/healthz"))[0], 200, "the first one still answers");
  });
  writeFileSync(path, "mine");
  await assert.rejects(runApi({ socketPath: path }), /there is a file of that name, which is no socket/);
  assert.ok(existsSync(path));
  rmSync(path);
});

test("a socket that somebody else has put in its place meanwhile is not removed", async () => {
  const other = createServer();
  await withApi(async () => {
    rmSync(path);
    await new Promise<void>((resolve) => other.listen(path, resolve));
  });
  assert.ok(statSync(path).isSocket());
  await new Promise((resolve) => other.close(resolve));
});

test("a path that is too long for a socket is refused in a sentence that names the setting", async () => {
  const long = join(directory, "x".repeat(100));
  await assert.rejects(runApi({ socketPath: long }), /VOLANT_API_SOCKET is .*, which is too long a path/);
});

test("a stream into a guest that breaks ends its client's over the socket, which knows no reset, and volantd goes on", async () => {
  const broken: Socket[] = [];
  const guest = createServer((socket) => void broken.push(socket)).listen(0, "127.0.0.1");
  await once(guest, "listening");
  const { port } = guest.address() as AddressInfo;
  await withApi(async ({ useCases }) => {
    await useCases.vms.create({ name: "web" });
    const headers = { host: "localhost", connection: "Upgrade", upgrade: "volant-stream" };
    const target = `/api/v1/vms/web/forward?port=${port}`;
    const outgoing = request({ socketPath: path, path: target, method: "POST", headers, agent: false }).end();
    const [, stream] = (await within(once(outgoing, "upgrade"), "an upgrade")) as [unknown, Socket];
    const ended = new Promise((resolve) =>
      stream
        .resume()
        .on("error", () => {})
        .once("close", resolve),
    );
    for (const socket of broken) socket.resetAndDestroy();
    await within(ended, "the end of the client's stream");
    assert.equal((await ask("/healthz"))[0], 200);
  });
  guest.close();
});
