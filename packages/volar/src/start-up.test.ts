/** What a start of volar loads: each of these would cost every command more than all that it does. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { promisify } from "node:util";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";

/** Node's own fetch(), as process.moduleLoadList has it. */
const FETCH = "NativeModule internal/deps/undici/undici";
const COUNT = `process.on("exit", () => console.error(process.moduleLoadList.includes(${JSON.stringify(FETCH)})))`;

let running: RunningApi;
before(async () => {
  running = await runApi();
  await running.useCases.vms.create({ name: "one" });
});
after(() => running.api.close());

/** Whether fetch() was loaded. */
async function loadsFetch(...args: readonly string[]): Promise<string> {
  const hook = `data:text/javascript,${encodeURIComponent(COUNT)}`;
  const main = join(import.meta.dirname, "main.ts");
  const { stderr } = await promisify(execFile)(process.execPath, ["--import", hook, main, ...args], {
    env: { ...process.env, VOLANT_API_BASE: running.address },
  });
  return stderr.trim();
}

test("commands that ask volantd do so without loading Node's fetch()", async () => {
  for (const command of [
    ["vms", "list"],
    ["vms", "get", "one"],
    ["__complete", "--", "vms", "get", "o"],
  ]) {
    assert.equal(await loadsFetch(...command), "false", command.join(" "));
  }
});
