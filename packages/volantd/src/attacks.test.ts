/** Attacks on a real volantd, each named by what it tries. What they aim at is looked for in its folder, its log and on the network, and not in its answers alone. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { text } from "node:stream/consumers";
import fc from "fast-check";
import { PATIENCE_MS, within } from "../../../test/patience.ts";
import { rawRequest, sendJson, type RawAnswer, type RawRequest } from "./api/testing/raw-request.ts";
import { encodeNewc } from "./image/newc.ts";
import { guestCmdline } from "./model/cmdline.ts";
import { checkUserCmdline } from "./runtime/kernel-cmdline.ts";
import { qemuArguments } from "./runtime/qemu/argv.ts";
import { runVolantd, type RunningVolantd } from "./testing/run-volantd.ts";

const KEY = "the-operators-own-key-0123456789";
const SECRET = "what nobody is to read";
const initramfs = encodeNewc([{ path: "init", kind: "file", mode: 0o755, content: Buffer.from("#!/bin/sh\n") }]);
const checksum = `sha256:${createHash("sha256").update(initramfs).digest("hex")}`;
const manifest = {
  name: "hello",
  version: "1.0.0",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { type: "http", base_url: "http://127.0.0.1:80", entrypoint: ["/init"] },
  initramfs: { url: "file:///hello.cpio", checksum },
};

let volantd: RunningVolantd;
let secretPath: string;

before(async () => {
  volantd = await runVolantd({ VOLANT_API_KEY: KEY, VOLANT_API_RATE: "off" });
  mkdirSync(join(volantd.directory, "secret"));
  secretPath = join(volantd.directory, "secret/file");
  writeFileSync(secretPath, SECRET);
  const put = { method: "PUT", headers: { "content-type": "application/octet-stream" }, body: initramfs };
  assert.equal((await ask(`/api/v1/images/${checksum}`, put)).status, 204);
  const installed = await post("/api/v1/plugins", manifest);
  assert.equal(installed.status, 201, installed.text);
});
after(() => volantd?.close());

/** A request of somebody who has the key: what he may not do, nobody may. */
function ask(target: string, options: RawRequest = {}): Promise<RawAnswer> {
  return rawRequest(volantd.address, target, { ...options, headers: { "x-volant-api-key": KEY, ...options.headers } });
}

function post(target: string, value: unknown): Promise<RawAnswer> {
  return ask(target, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value) });
}

/** Every file and folder of volantd's, but those that it writes all the time. */
function inventory(): string[] {
  const all = globSync("**/*", { cwd: volantd.directory }).filter((name) => !/state\.db|audit\.jsonl/.test(name));
  return [...all, ...globSync(".*", { cwd: volantd.directory })].toSorted();
}

/** Sends bytes as they are, and gives all that comes back. */
async function sendRaw(bytes: string): Promise<string> {
  const { port } = new URL(volantd.address);
  const socket = connect(Number(port), "127.0.0.1");
  socket.end(bytes);
  return within(text(socket), "the end of an answer");
}

const CLIMBS = [
  "../../secret/file",
  "..%2f..%2fsecret%2ffile",
  "%2e%2e%2f%2e%2e%2fsecret%2ffile",
  "%2e%2e/%2e%2e/secret/file",
  "..%252f..%252fsecret%252ffile",
  "..%5c..%5csecret%5cfile",
  "%c0%ae%c0%ae%c0%afsecret",
  "....//....//secret/file",
  "/etc/passwd",
  "%2fetc%2fpasswd",
  "hello%00.log",
  ".",
  "..",
  "%2e",
  "-rf",
  "~root",
];

test("path traversal in URLs, plain and percent-encoded, reads, makes and removes no file", async () => {
  const before = inventory();
  for (const climb of CLIMBS) {
    for (const target of [
      `/api/v1/vms/${climb}`,
      `/api/v1/vms/${climb}/logs`,
      `/api/v1/vms/${climb}/config`,
      `/api/v1/plugins/${climb}`,
      `/api/v1/images/${climb}`,
      `/api/v1/images/sha256:${climb}`,
      `/api/v1/deployments/${climb}`,
      `/${climb}`,
    ]) {
      for (const method of ["GET", "DELETE", "PUT"]) {
        const answer = await ask(target, { method });
        const what = `${method} ${target}: ${answer.status} ${answer.text}`;
        // A path that a client or server may fold can name what is there, such as the list of all VMs; it is no file.
        assert.ok([200, 400, 404].includes(answer.status), what);
        assert.ok(answer.status !== 200 || method === "GET", what);
        assert.ok(!answer.text.includes(SECRET) && !answer.text.includes("root:"), what);
      }
    }
  }
  assert.deepEqual(inventory(), before);
  assert.equal(readFileSync(secretPath, "utf8"), SECRET);
});

test("path traversal in names makes no VM, plugin, deployment or key", async () => {
  const before = inventory();
  for (const name of ["../x", "..", ".", "a/../../x", "/etc/x", "a\u0000b", "a\\..\\b", "~", "-x", "a\n", " a", ""]) {
    for (const [target, body] of [
      ["/api/v1/vms", { name, plugin: "hello" }],
      ["/api/v1/plugins", { ...manifest, name }],
      ["/api/v1/deployments", { name, config: { plugin: "hello" } }],
      ["/api/v1/keys", { name, scope: "read" }],
      ["/api/v1/vms", { name: "a", plugin: name }],
    ] as const) {
      const answer = await post(target, body);
      assert.equal(answer.status, 400, `${target} ${JSON.stringify(name)}: ${answer.text}`);
    }
  }
  assert.deepEqual(inventory(), before);
});

test("a name that makes one VM's log the console's file of another is refused", async () => {
  const config = { network: { mode: "vsock" } };
  for (const name of ["vm-1.console", "vm-1.console.previous", "VM-12.console"]) {
    const answer = await post("/api/v1/vms", { name, plugin: "hello", config });
    assert.equal(answer.status, 400, answer.text);
    assert.match(answer.text, /its log would be the file of a VM's console/);
  }
});

test("a manifest or a VM's configuration that names a file of the host gets none of it", async () => {
  for (const url of [secretPath, `file://${secretPath}`, "file:///etc/passwd", "/etc/passwd", `work/../secret/file`]) {
    const sha = `sha256:${createHash("sha256").update(SECRET).digest("hex")}`;
    for (const part of [
      { initramfs: { url } },
      { initramfs: { url, checksum: sha } },
      { rootfs: { url, checksum: sha, format: "raw" } },
    ]) {
      const named = { ...manifest, name: "thief", initramfs: undefined, ...part };
      const installed = await post("/api/v1/plugins", named);
      assert.ok([400, 404, 501].includes(installed.status), `${url}: ${installed.status} ${installed.text}`);
      const made = await post("/api/v1/vms", { name: "thief", config: { manifest: named } });
      assert.ok([400, 404, 501].includes(made.status), `${url}: ${made.status} ${made.text}`);
      assert.ok(!`${installed.text}${made.text}`.includes(SECRET));
    }
  }
  for (const field of ["kernel_override", "initramfs", "rootfs"]) {
    const answer = await post("/api/v1/vms", { name: "thief", plugin: "hello", config: { [field]: secretPath } });
    assert.ok([400, 501].includes(answer.status), `${field}: ${answer.status} ${answer.text}`);
  }
});

test("SSRF: volantd connects to no address that a request names", async () => {
  let connections = 0;
  const target = createServer((socket) => {
    connections += 1;
    socket.destroy();
  }).listen(0, "127.0.0.1");
  await once(target, "listening");
  const { port } = target.address() as AddressInfo;
  for (const url of [
    `http://127.0.0.1:${port}/x`,
    `https://127.0.0.1:${port}/x`,
    `http://localhost:${port}/x`,
    `http://[::ffff:127.0.0.1]:${port}/x`,
  ]) {
    const named = { ...manifest, name: "fetcher", initramfs: { url } };
    assert.ok((await post("/api/v1/plugins", named)).status >= 400);
    assert.ok((await post("/api/v1/plugins", { ...manifest, name: "fetcher", openapi: url })).status < 500);
    await ask("/api/v1/plugins/fetcher", { method: "DELETE" });
    assert.ok((await post("/api/v1/vms", { name: "a", config: { manifest: named } })).status >= 400);
    assert.ok((await post("/api/v1/plugins/hello/artifacts", { source_url: url, version: "1" })).status >= 400);
    // An absolute URL as the request's target is what a proxy would be asked.
    assert.match(
      await sendRaw(`GET ${url} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Volant-API-Key: ${KEY}\r\nConnection: close\r\n\r\n`),
      /^HTTP\/1\.1 4\d\d /,
    );
    assert.match(
      await sendRaw(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`),
      /^(HTTP\/1\.1 4\d\d .*)?$/s,
    );
  }
  assert.equal(connections, 0);
  target.close();
});

const INJECTED_WORDS = [
  "init=/bin/sh",
  "quiet rdinit=/bin/sh",
  "rd-init=/x rdinit=/bin/sh",
  'a="b rdinit=/bin/sh"',
  "a -- /bin/sh",
  "a\nrdinit=/bin/sh",
  "a\u00a0b",
  "volant.plugin=other",
  "ip=10.0.0.1::10.0.0.254:255.0.0.0::eth0:off",
  "console=tty0",
];

test("kernel-command-line injection: no field of a request sets what Volant sets itself, or a second word", async () => {
  for (const words of INJECTED_WORDS) {
    for (const body of [
      { name: "a", plugin: "hello", kernel_cmdline: words },
      { name: "a", plugin: "hello", config: { kernel_cmdline: words } },
      { name: "a", plugin: "hello", api_host: `h ${words}` },
      { name: "a", plugin: "hello", runtime: `r ${words}`.slice(0, 63) },
      { name: "a", plugin: "hello", api_port: "8 x" },
    ]) {
      const answer = await post("/api/v1/vms", body);
      assert.equal(answer.status, 400, `${JSON.stringify(body)}: ${answer.status} ${answer.text}`);
    }
  }
  assert.deepEqual((await ask("/api/v1/vms")).json, []);
  // It is the words that are refused, and not the rest of the request.
  const config = { network: { mode: "vsock" } };
  const words = { name: "a", plugin: "hello", kernel_cmdline: "quiet loglevel=3" };
  const harmless = await post("/api/v1/vms?wait=0s", { ...words, config });
  assert.ok([201, 202].includes(harmless.status), harmless.text);
  assert.ok([202, 204].includes((await ask("/api/v1/vms/a", { method: "DELETE" })).status));
});

test("option injection into the hypervisor: whatever words a user may give, QEMU gets them as one value, and the rest as ever", () => {
  const facts = { accelerator: "tcg", machine: "q35" } as const;
  const launch = (extra: string) =>
    qemuArguments(
      "0123abcd",
      {
        vmId: 7,
        generation: 1,
        name: "web",
        cpuCores: 1,
        memoryMib: 128,
        kernel: { bzImagePath: "/k" },
        initrdPath: "/i",
        cmdline: guestCmdline({ hostname: "web", runtime: "hello", plugin: "hello", extra }),
        vsockCid: 10,
      },
      facts,
    );
  const plain = launch("");
  const at = plain.indexOf("-append") + 1;
  const word = fc.oneof(
    fc.constantFrom("-monitor", "-serial file:/x", ",script=/bin/sh", "a,,b", "-sandbox off", ...INJECTED_WORDS),
    fc.string({ maxLength: 30 }),
  );
  let passed = 0;
  fc.assert(
    fc.property(fc.array(word, { maxLength: 5 }), (words) => {
      let extra: string;
      try {
        extra = checkUserCmdline(words.join(" "));
      } catch {
        return;
      }
      passed += 1;
      const args = launch(extra);
      assert.deepEqual(args.toSpliced(at, 1), plain.toSpliced(at, 1));
      assert.equal(args[at], [plain[at], extra].filter((part) => part !== "").join(" "));
      assert.equal((args[at]?.match(/(^| )(rd)?init=/g) ?? []).length, 1);
    }),
  );
  assert.ok(passed > 10, "some of them are words that may be given");
});

test("log injection: names, paths and fields of a request make no line of their own, and drive no terminal", async () => {
  const evil = "x%0a%7b%22level%22%3a%22info%22%7d%0d%1b%5b2J%c2%85%e2%80%a8";
  const raw = 'x\n{"level":"info"}\r\u001b[2J\u0085\u2028';
  for (const method of ["GET", "POST", "DELETE"]) {
    await ask(`/api/v1/vms/${evil}`, { method });
    await ask(`/api/v1/vms/${evil}/start`, { method });
    await ask(`/${evil}`, { method });
  }
  await post("/api/v1/vms", { name: raw, plugin: raw, config: { metadata: { [raw]: raw } } });
  await post("/api/v1/keys", { name: raw, scope: raw });
  const fields = "User-Agent: evil\u001b[31m\r\nReferer: http://evil\u001b[31m/\r\nX-Request-Id: evil\u001b\r\n";
  await sendRaw(`DELETE /api/v1/vms/none HTTP/1.1\r\nHost: 127.0.0.1\r\n${fields}Connection: close\r\n\r\n`);
  await sendRaw("\u001b[2J evil\r\n\r\n");
  const texts = [volantd.log(), await auditText(10)];
  for (const written of texts) {
    // oxlint-disable-next-line no-control-regex
    assert.doesNotMatch(written, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u2029]/);
    for (const line of written.trim().split("\n")) {
      if (line !== "") assert.ok("time" in (JSON.parse(line) as object), line);
    }
    assert.ok(!written.includes("User-Agent") && !written.includes("evil\u001b"));
  }
});

/** The audit log, once it has so many lines. */
async function auditText(lines: number): Promise<string> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const written = readFileSync(join(volantd.directory, ".volant/logs/audit.jsonl"), "utf8");
    if (written.split("\n").length > lines || performance.now() > deadline) return written;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("a key is looked for in vain in logs, in the database and in every file, wherever a client has put it", async () => {
  const { key } = (await post("/api/v1/keys", { name: "leaky", scope: "operate" })).json as { key: string };
  for (const secret of [key, KEY]) {
    const headers = { "x-volant-api-key": secret };
    await ask(`/api/v1/vms?api_key=${secret}`, { headers });
    await ask(`/api/v1/vms?q=${secret}`, { headers });
    await ask(`/api/v1/vms/${secret}`, { headers, method: "DELETE" });
    await ask(`/api/v1/${secret}/x`, { headers, method: "POST" });
    await ask(`/api/v1/vms/a/agent/${secret}?k=${secret}`, { headers });
    await ask("/api/v1/vms", { headers: { ...headers, host: `${secret}.example` } });
    await ask("/api/v1/vms", { headers: { "x-volant-api-key": `${secret}x` } });
    await ask("/api/v1/vms", { headers: { authorization: `Bearer ${secret}`, "x-volant-api-key": [] as never } });
  }
  await auditText(16);
  const files = globSync(["**/*", ".volant/**/*"], { cwd: volantd.directory, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  assert.ok(files.some(({ name }) => name === "audit.jsonl") && files.some(({ name }) => name.startsWith("state.db")));
  for (const secret of [key, KEY]) {
    assert.ok(!volantd.log().includes(secret));
    for (const { parentPath, name } of files) {
      assert.ok(!readFileSync(join(parentPath, name)).includes(secret), `${name} holds a key`);
    }
  }
});

test("a volantd that others can reach does not start without a key, whether from the environment or made before", async () => {
  const open = { VOLANT_API_LISTEN: "0.0.0.0:0", VOLANT_DB_PATH: join(volantd.directory, "secret/other.db") };
  const sentence =
    /ended with 2: volantd: VOLANT_API_LISTEN is 0\.0\.0\.0, which others can reach, and there is no API key/;
  await assert.rejects(runVolantd(open), sentence);
  const first = await runVolantd({ ...open, VOLANT_API_LISTEN: "127.0.0.1:0" });
  const made = await sendJson(first.address, "/api/v1/keys", { name: "first", scope: "admin" }).finally(first.close);
  const { key } = made.json as { key: string };
  const started = await runVolantd(open);
  try {
    const address = started.address.replace("0.0.0.0", "127.0.0.1");
    assert.equal((await rawRequest(address, "/api/v1/keys")).status, 401);
    const headers = { "x-volant-api-key": key };
    const revoked = await rawRequest(address, "/api/v1/keys/first", { method: "DELETE", headers });
    assert.equal(revoked.status, 204, "whoever revokes his own key reads that it is so");
    assert.equal((await rawRequest(address, "/api/v1/vms")).status, 401, "no key left is no open door");
  } finally {
    await started.close();
  }
});

test("and after all this volantd answers as ever, without a bug in its log", async () => {
  assert.equal((await sendJson(volantd.address, "/api/v1/vms", { name: "a" })).status, 401);
  assert.equal((await ask("/api/v1/system/status")).status, 200);
  assert.doesNotMatch(volantd.log(), /"level":"error"/);
});
