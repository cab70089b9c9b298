/** A guest that prints to its console without end, while volantd lives and while it is dead: files stay small, and the last lines are there. */
import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import test, { after, before } from "node:test";
import type { NumberedVmEvent } from "@volant/contract";
import { MAX_FILE_BYTES } from "../../packages/volantd/src/runtime/console-log.ts";
import { enterOwnNamespace } from "../namespace.ts";
import { vmEntries } from "../vm/house.ts";
import { StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

const LIMIT_MS = 120_000;
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open();
});

after(async () => {
  await at?.close();
});

const folderOf = (variable: string) => at.house.environment[variable] ?? "";

/** Bytes in a file; 0 when it is not there. */
function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** Looks until it is so: files tell nobody when they grow. */
async function until(what: string, so: () => boolean): Promise<void> {
  const deadline = performance.now() + LIMIT_MS;
  while (!so()) {
    if (performance.now() > deadline) throw new Error(`not so within ${LIMIT_MS} ms: ${what}`);
    await delay(50);
  }
}

/** The number of the last line in a text of them. */
function lastNumber(text: string): number {
  return Number([...text.matchAll(/flood (\d+) /g)].at(-1)?.[1] ?? -1);
}

test("a guest that floods its console fills files of bounded size, and its crash is told with the last that it printed", async () => {
  const { id, pid: none } = await at.create("flood", "standin.flood_console");
  assert.equal(none, undefined);
  await at.until((vms) => vms.every(({ status }) => status === "running"));
  const { pid = 0 } = await at.ask<{ pid?: number }>(200, "GET", "vms/flood");
  const console = join(folderOf("VOLANT_RUNTIME_DIR"), String(id), "console.log");
  const archive = join(folderOf("VOLANT_LOG_DIR"), `vm-${id}.console.log`);
  const bounded = () => {
    for (const path of [console, archive]) assert.ok(sizeOf(path) <= MAX_FILE_BYTES, `${path}: ${sizeOf(path)} bytes`);
  };

  await until("the console is moved to its archive", () => sizeOf(archive) > 0);
  bounded();
  await at.house.stopVolantd("SIGKILL");
  await until("the console is full while volantd is dead", () => sizeOf(console) === MAX_FILE_BYTES);
  bounded();
  const whileDead = lastNumber(readFileSync(console, "latin1"));
  await at.house.startVolantd();
  // Once for what was full, and again: from then on it is looked at often enough.
  const numberIn = () => lastNumber(readFileSync(archive, "latin1"));
  await until("volantd moves what was full", () => numberIn() >= whileDead);
  const full = numberIn();
  await until("volantd follows the flood", () => numberIn() > full + 1000);
  bounded();

  const before = lastNumber(readFileSync(console, "latin1"));
  process.kill(pid, "SIGKILL");
  await at.until((vms) => vms.every(({ status }) => status === "crashed"));
  bounded();
  const [crash] = await at.ask<NumberedVmEvent[]>(200, "GET", "events?name=flood&type=VM_CRASHED");
  assert.ok(lastNumber(crash?.message ?? "") >= before, `${crash?.message} is older than line ${before}`);
  await at.delete("flood");
  assert.deepEqual(vmEntries(folderOf("VOLANT_LOG_DIR")), []);
  assert.deepEqual(at.leaks(), []);
});
