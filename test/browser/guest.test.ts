/** A page of another origin and a real guest, over the SDK: console, programs, a shell, logs, and events while volantd is killed and started again. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test, { after, before } from "node:test";
import type { Page } from "playwright-core";
import { enterOwnNamespace } from "../namespace.ts";
import { openHouse, type House } from "../vm/house.ts";
import { buildProbePlugin } from "../vm/probe-plugin.ts";
import { Chromium } from "./chromium.ts";
import { PageServer } from "./page-server.ts";
import { play, playUntil } from "./scene.ts";

enterOwnNamespace(import.meta.url);

const apiKey = "a-key-of-the-operator's";
let [chromium, pages, house]: [Chromium?, PageServer?, House?] = [];
let page: Page;

function theHouse(): House {
  assert.ok(house !== undefined, "the house is open");
  return house;
}

before(async () => {
  pages = await PageServer.open("scenes.ts");
  house = await openHouse({ env: { VOLANT_API_KEY: apiKey, VOLANT_CORS_ORIGINS: pages.origin } });
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  const workload = {
    type: "http",
    base_url: "http://127.0.0.1:80",
    entrypoint: ["/bin/sh", "-c", "echo the workload begins; exec /bin/busybox httpd -f -p 80 -h /www"],
  };
  await house.volarDone("plugins", "install", buildProbePlugin(directory, { workload }));
  chromium = await Chromium.open();
  page = await chromium.page(pages.origin);
  await play(page, "connect", { baseUrl: "http://127.0.0.1:7777", apiKey });
  await play(page, "watch", 0);
});
after(async () => {
  await chromium?.close();
  await house?.close();
  await pages?.close();
});

/** The events that the database holds, read from there and not from volantd. */
function stored(): { id: number; name: string; type: string }[] {
  const database = new DatabaseSync(theHouse().environment["VOLANT_DB_PATH"] ?? "", { readOnly: true });
  const rows = database.prepare("SELECT id, event FROM events ORDER BY id").all();
  database.close();
  return rows.map(({ id, event }) => {
    const { name, type } = JSON.parse(String(event)) as { name: string; type: string };
    return { id: Number(id), name, type };
  });
}

test("a page creates a VM and waits until it runs", async () => {
  await play(page, "create", "remote", "probe");
  assert.equal(await play(page, "wait", "remote"), "running");
});

test("a page reads a VM's log, what is there and what comes", async () => {
  await playUntil(page, (lines) => lines.includes("the workload begins"), "logs", "remote");
  await play(page, "follow", "remote");
  await playUntil(page, (lines) => lines.includes("the workload begins"), "followed");
});

test("a page runs programs in the guest and types in a shell, which knows the size of its terminal", async () => {
  assert.deepEqual(
    await play(page, "exec", "remote", { argv: ["sh", "-c", "busybox cat; echo no >&2; exit 7"] }, "yes"),
    {
      stdout: "yes",
      stderr: "no\n",
      exit: { code: 7 },
    },
  );
  const length = 2 * 1024 * 1024;
  assert.deepEqual(await play(page, "throughCat", "remote", ["/bin/busybox", "cat"], length), {
    exit: { code: 0 },
    length,
    isSame: true,
  });
  await play(page, "openShell", "remote");
  await play(page, "typeInShell", "remote", "/bin/busybox stty size\n");
  await playUntil(page, (text) => text.includes("24 80"), "shellPrinted", "remote");
  await play(page, "resizeShell", "remote", 100, 40);
  await play(page, "typeInShell", "remote", "/bin/busybox stty size\n");
  await playUntil(page, (text) => text.includes("40 100"), "shellPrinted", "remote");
  await play(page, "typeInShell", "remote", "exit 3\n");
  assert.deepEqual(await play(page, "shellExit", "remote"), { code: 3 });
});

test("bytes go both ways over the serial console", async () => {
  await play(page, "openConsole", "remote");
  await play(page, "exec", "remote", { argv: ["sh", "-c", "echo from the guest > /dev/ttyS0"] });
  await playUntil(page, ({ printed }) => printed.includes("from the guest\r\n"), "printed", "remote");
  const reader = play(page, "exec", "remote", { argv: ["/bin/busybox", "head", "-n", "1", "/dev/ttyS0"] });
  // What is typed before somebody reads may be lost, as on any serial line.
  const typing = setInterval(() => void play(page, "type", "remote", "from the page\r").catch(() => {}), 500);
  const { stdout } = await reader.finally(() => clearInterval(typing));
  assert.equal(stdout, "from the page\n");
  await play(page, "leaveConsole", "remote");
  await playUntil(page, ({ end }) => end === "ended", "printed", "remote");
});

test("events and a followed log go on over kills of volantd: each event once and in order, as they are stored", async () => {
  for (const name of ["first", "second"]) {
    await play(page, "create", name, "probe");
    // At another moment each time: at once, and when the event has come.
    if (name === "second") {
      await playUntil(page, ({ events }) => events.some((event) => event.name === name), "seen");
    }
    await theHouse().stopVolantd("SIGKILL");
    await theHouse().startVolantd();
    await play(page, "remove", name);
  }
  const gone = (name: string) => (event: { name: string; type: string }) =>
    event.name === name && event.type === "VM_DELETED";
  const isWhole = (events: { name: string; type: string }[]) =>
    events.some(gone("first")) && events.some(gone("second"));
  const { events, end } = await playUntil(page, ({ events: seen }) => isWhole(seen), "seen");
  assert.equal(end, "");
  const kept = events.filter(({ type }) => type !== "VM_LOG");
  assert.deepEqual(
    kept,
    stored().filter(({ id }) => id <= (kept.at(-1)?.id ?? 0)),
  );
  const ids = events.map(({ id }) => id);
  assert.deepEqual(
    ids,
    [...new Set(ids)].sort((a, b) => a - b),
  );
  assert.equal(kept.filter(({ name, type }) => name === "first" && type === "VM_CREATED").length, 1);
  // As the workload itself: into its standard output.
  const say =
    "for f in $(/bin/busybox grep -l 'http[d]' /proc/[0-9]*/cmdline); do echo it goes on > ${f%cmdline}fd/1; done";
  await play(page, "exec", "remote", { argv: ["sh", "-c", say] });
  const lines = await playUntil(page, (all) => all.includes("it goes on"), "followed");
  assert.equal(lines.filter((line) => line === "the workload begins").length, 1);
});

test("a console that ends with its VM says so, and one of a VM that is stopped is refused with the reason", async () => {
  await play(page, "openConsole", "remote");
  await theHouse().volarDone("vms", "stop", "remote");
  await playUntil(page, ({ end }) => end === "ended", "printed", "remote");
  const refused = await play(page, "consoleRefused", "remote");
  assert.deepEqual([refused.code, refused.message], ["wrong_state", 'VM "remote" is stopped, and has no console']);
});
