/** Files that volar gets from the web or from this machine for volantd, which fetches nothing and reads no path: the real program, a real API, a real web server. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";
import { runVolar, type Finished } from "./testing/run-volar.ts";

const archive = Buffer.from("an archive of the web");
const checksum = `sha256:${createHash("sha256").update(archive).digest("hex")}`;
let running: RunningApi;
let web: Server;
let site: string;
let scratch: string;
/** What is served, by path: a text, bytes, or where to go instead. */
const pages = new Map<string, Buffer | { readonly location: string }>();

before(async () => {
  running = await runApi();
  scratch = mkdtempSync(join(tmpdir(), "volar-web-"));
  web = createServer((request, response) => {
    const page = pages.get(request.url ?? "");
    if (page === undefined) response.writeHead(404).end();
    else if ("location" in page) response.writeHead(302, page).end();
    else response.writeHead(200, { "content-length": page.length }).end(page);
  }).listen(0, "127.0.0.1");
  await once(web, "listening");
  site = `http://127.0.0.1:${(web.address() as AddressInfo).port}`;
});
after(async () => {
  web.closeAllConnections();
  web.close();
  rmSync(scratch, { recursive: true });
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

function volar(...args: string[]): Promise<Finished> {
  return runVolar(args, { cwd: scratch, env: { VOLANT_API_BASE: running.address, TMPDIR: scratch } });
}

function publish(path: string, name: string, initramfs: object): void {
  const manifest = {
    name,
    version: "1",
    resources: { cpu_cores: 1, memory_mb: 128 },
    workload: { entrypoint: ["/bin/x"] },
    initramfs,
  };
  pages.set(path, Buffer.from(JSON.stringify(manifest)));
}

test("a plugin is installed from the web: its file is got from beside the manifest, checked, and handed over", async () => {
  publish("/hello/manifest.json", "hello", { url: "image.cpio", checksum });
  pages.set("/hello/image.cpio", { location: "/elsewhere.cpio" });
  pages.set("/elsewhere.cpio", archive);
  const { code, stdout, stderr } = await volar("plugins", "install", `${site}/hello/`);
  assert.deepEqual([code, stdout], [0, "plugin hello 1 installed\n"], stderr);
  assert.deepEqual(running.images.get(checksum), archive);
  assert.deepEqual(running.useCases.plugins.get("hello").manifest.initramfs, {
    url: `${site}/hello/image.cpio`,
    checksum,
  });
  assert.deepEqual(readdirSync(scratch), [], "nothing is left of what was got");
});

test("a manifest of this machine may name a file of the web", async () => {
  publish("/unused", "mixed", { url: `${site}/elsewhere.cpio` });
  writeFileSync(join(scratch, "manifest.json"), pages.get("/unused") as Buffer);
  const { code, stderr } = await volar("plugins", "install", "manifest.json");
  assert.equal(code, 0, stderr);
  assert.equal(running.useCases.plugins.get("mixed").manifest.initramfs?.checksum, checksum);
});

const refusals: Record<string, [initramfs: object, code: number, sentence: RegExp]> = {
  "a file of this machine": [{ url: "file:///etc/passwd" }, 2, /may not name files of this machine/],
  "another checksum": [{ url: "/elsewhere.cpio", checksum: `sha256:${"0".repeat(64)}` }, 2, /has the checksum sha256:/],
  "a file that is not there": [{ url: "gone.cpio" }, 2, /cannot get .*\/bad\/gone\.cpio: its server answers 404\n {2}/],
  "a server that does not answer": [{ url: "http://127.0.0.1:9/x" }, 1, /cannot get http:\/\/127\.0\.0\.1:9\/x: /],
};
for (const [what, [initramfs, code, sentence]] of Object.entries(refusals)) {
  test(`a manifest of the web that names ${what} is refused, and nothing is sent`, async () => {
    publish("/bad/manifest.json", "bad", initramfs);
    const sent = running.images.size;
    const finished = await volar("plugins", "install", `${site}/bad/manifest.json`);
    assert.deepEqual([finished.code, finished.stdout], [code, ""], finished.stderr);
    assert.match(finished.stderr, sentence);
    assert.equal(running.images.size, sent);
  });
}

test("a manifest of the web that is none is named with its address", async () => {
  pages.set("/page", Buffer.from("<html>"));
  assert.match((await volar("plugins", "install", `${site}/page`)).stderr, /http:\S+\/page is not JSON/);
  pages.set("/huge", Buffer.alloc(2_000_000, " "));
  assert.match((await volar("plugins", "install", `${site}/huge`)).stderr, /http:\S+\/huge holds more than \d+ bytes/);
});

test("another initramfs for one VM is handed over by its checksum, and one that differs from the given checksum is not", async () => {
  const own = Buffer.from("an archive of this machine");
  const digest = `sha256:${createHash("sha256").update(own).digest("hex")}`;
  writeFileSync(join(scratch, "own.cpio"), own);
  const create = (...args: string[]) => volar("vms", "create", "web", "--plugin", "hello", "--initramfs", ...args);
  const wrong = await create("own.cpio", "--initramfs-checksum", checksum);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /own\.cpio \(--initramfs\) has the checksum/);
  const made = await create("own.cpio", "--initramfs-checksum", digest);
  assert.equal(made.code, 0, made.stderr);
  assert.deepEqual(running.images.get(digest), own);
  assert.deepEqual(running.useCases.configs.get("web").config.initramfs, {
    url: `file://${scratch}/own.cpio`,
    checksum: digest,
  });
});
