/** The SDK in a real browser, on a page of another origin: calls, errors, what a page may not do, and streams that nobody reads. */
import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import type { Page } from "playwright-core";
import { runApi, type RunningApi } from "../../packages/volantd/src/api/testing/running-api.ts";
import { enterOwnNamespace } from "../namespace.ts";
import { Chromium } from "./chromium.ts";
import { PageServer } from "./page-server.ts";
import { play } from "./scene.ts";

enterOwnNamespace(import.meta.url);

const apiKey = "a key that only a page has";
let [chromium, allowed, other]: [Chromium?, PageServer?, PageServer?] = [];
let running: RunningApi | undefined;
let page: Page;
let stranger: Page;
/** Every URL that the allowed page asked for. */
const urls: string[] = [];

before(async () => {
  allowed = await PageServer.open("scenes.ts");
  other = await PageServer.open("scenes.ts");
  running = await runApi({ apiKey, corsOrigins: [allowed.origin] });
  chromium = await Chromium.open();
  page = await chromium.page(allowed.origin);
  page.on("request", (request) => urls.push(request.url()));
  page.on("websocket", (socket) => urls.push(socket.url()));
  stranger = await chromium.page(other.origin);
  for (const each of [page, stranger]) await play(each, "connect", { baseUrl: running.address, apiKey });
});
after(async () => {
  await chromium?.close();
  await running?.api.close();
  await Promise.all([allowed?.close(), other?.close()]);
  assert.deepEqual(running?.errors, [], "no request ran into a bug");
});

test("typed calls go from a page of another origin: create, list with its count, delete", async () => {
  assert.deepEqual(await play(page, "life", "web"), {
    created: "web",
    status: "pending",
    listed: ["web"],
    total: 1,
    after: 0,
  });
});

test("a page reads errors with their code, sentence and hint", async () => {
  const missing = await play(page, "getRefused", "none");
  assert.deepEqual([missing.isVolantError, missing.code], [true, "not_found"]);
  assert.match(missing.message, /"none"/);
  await play(page, "connect", { baseUrl: running?.address ?? "" });
  const keyless = await play(page, "listRefused");
  assert.equal(keyless.code, "unauthorized");
  assert.match(keyless.message, /needs a key/);
  assert.match(keyless.hint, /X-Volant-API-Key/);
  await play(page, "connect", { baseUrl: running?.address ?? "", apiKey });
});

test("a page of an origin that is not allowed reads nothing, changes nothing and opens nothing", async () => {
  const code = "not_ready";
  assert.equal((await play(stranger, "listRefused")).code, code);
  assert.equal((await play(stranger, "consoleRefused", "web")).code, code);
  assert.equal((await play(stranger, "execRefused", "web")).code, code);
  // What needs no preflight reaches volantd, and is refused there.
  const create = `${running?.address}/api/v1/vms`;
  assert.equal(await play(stranger, "slip", create, '{"name":"slipped"}'), "opaque");
  assert.equal(running?.useCases.vms.list({}).total, 0);
  for (const kind of ["console", "exec", "logs"]) {
    const url: string = `${running?.address.replace("http", "ws")}/ws/v1/vms/web/${kind}`;
    assert.equal(await play(stranger, "socket", url), "closed 1006", kind);
  }
});

test("files are handed over from a page, whole or in pieces, and what does not fit its checksum is refused", async () => {
  assert.deepEqual(await play(page, "upload"), { before: false, after: true, wrong: "checksum_mismatch" });
});

test("a program runs by a WebSocket: input, both outputs, its exit, and the reason where there is no such program or VM", async () => {
  await play(page, "create", "web");
  assert.deepEqual(await play(page, "exec", "web", { argv: ["cat"] }, "grüße\n"), {
    stdout: "grüße\n",
    stderr: "",
    exit: { code: 0 },
  });
  assert.deepEqual(await play(page, "exec", "web", { argv: ["fail"] }), {
    stdout: "",
    stderr: "it failed\n",
    exit: { code: 3 },
  });
  assert.equal((await play(page, "programRefused", "web", "none")).code, "not_found");
  assert.equal((await play(page, "execRefused", "nowhere")).code, "not_found");
});

test("4 MiB go both ways at once, byte for byte; output that a page does not read is held back, and volantd serves on", async () => {
  const length = 4 * 1024 * 1024;
  assert.deepEqual(await play(page, "throughCat", "web", ["cat"], length), { exit: { code: 0 }, length, isSame: true });
  await play(page, "ignore", "web", ["flood"]);
  assert.deepEqual((await play(page, "exec", "web", { argv: ["echo", "still", "here"] })).stdout, "still here\n");
  await play(page, "leaveShell", "web");
});

test("the key was in no URL that the page asked for, and in no line of the audit log", () => {
  assert.ok(urls.some((url) => url.startsWith("ws://") && url.includes("/exec")));
  const words = [apiKey, encodeURIComponent(apiKey), Buffer.from(apiKey).toString("base64url")];
  for (const text of [...urls, JSON.stringify(running?.audited)]) {
    assert.ok(!words.some((word) => text.includes(word)), text);
  }
});
