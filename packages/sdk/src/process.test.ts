/** Programs in guests as streams of the Web's, here under Node: against a real API, whose guests are stood in for (testing/stand-in-exec.ts). */
import assert from "node:assert/strict";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { within } from "../../../test/patience.ts";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";
import { VolantClient, type VmProcess } from "./index.ts";

let running: RunningApi;
let volant: VolantClient;

before(async () => {
  running = await runApi({ apiKey: "a key, with ümlauts" });
  volant = new VolantClient({ baseUrl: running.address, apiKey: "a key, with ümlauts" });
  await volant.vms.create({ name: "web" });
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

const exec = (...argv: string[]): Promise<VmProcess> => volant.vms.exec("web", { argv });

test("output goes to its stream, and the exit comes after it", async () => {
  const echo = await exec("echo", "hello", "there");
  assert.deepEqual(await Promise.all([text(echo.stdout), text(echo.stderr)]), ["hello there\n", ""]);
  assert.deepEqual(await echo.exit, { code: 0 });
  const fail = await exec("fail");
  assert.deepEqual(await Promise.all([text(fail.stdout), text(fail.stderr)]), ["", "it failed\n"]);
  assert.deepEqual(await fail.exit, { code: 3 });
});

test("much more than the window goes both ways at once, whole and in order, and nobody waits for good", async () => {
  const cat = await exec("cat");
  const sent = Array.from({ length: 64 }, (_, index) => new Uint8Array(150_001).fill(index));
  const write = async () => {
    const writer = cat.stdin.getWriter();
    for (const bytes of sent) await writer.write(bytes);
    await writer.close();
  };
  const parts: Uint8Array[] = [];
  const read = async () => {
    for await (const bytes of cat.stdout) parts.push(bytes);
  };
  await within(Promise.all([write(), read()]), "all of it came back");
  assert.deepEqual(await cat.exit, { code: 0 });
  assert.ok(Buffer.concat(parts).equals(Buffer.concat(sent)));
});

test("output that nobody reads holds the program up, and may be called off", async () => {
  const flood = await exec("flood");
  const reader = flood.stdout.getReader();
  await within(reader.read(), "some output");
  let settled = false;
  const exit = flood.exit.finally(() => (settled = true)).catch((error: unknown) => error);
  // The API answers while the flood is held: it fills nobody's memory and takes nobody's turn.
  for (let asked = 0; asked < 20; asked += 1) await volant.vms.get("web");
  assert.equal(settled, false);
  flood.close();
  assert.equal(((await within(exit, "the end")) as { code: string }).code, "guest_unreachable");
  await within(
    (async () => {
      while (!(await reader.read()).done);
    })(),
    "the output's end",
  );
});

test("output that is not wanted is dropped, and input that a program does not take is no failure", async () => {
  const fail = await exec("fail");
  await Promise.all([fail.stdout.cancel(), fail.stderr.cancel()]);
  assert.deepEqual(await fail.exit, { code: 3 });
  const writer = fail.stdin.getWriter();
  await writer.write(new Uint8Array(5_000_000));
  await writer.close();
});

test("an input that breaks off hangs up, and so does a signal", async () => {
  const cat = await exec("cat");
  await cat.stdin.abort(new Error("no more"));
  await assert.rejects(cat.exit, { code: "guest_unreachable" });
  const controller = new AbortController();
  const waiting = await volant.vms.exec("web", { argv: ["wait"] }, { signal: controller.signal });
  controller.abort();
  await assert.rejects(waiting.exit, { code: "guest_unreachable" });
  assert.equal(await text(waiting.stdout), "");
});

test("what can't be run, or opened, is an error with its code", async () => {
  await assert.rejects((await exec("none")).exit, { code: "not_found", message: /no program "none"/ });
  await assert.rejects(volant.vms.exec("nowhere", { argv: ["echo"] }), { code: "not_found" });
  await assert.rejects(exec("echo", "x".repeat(70_000)), { code: "too_large" });
  const stranger = new VolantClient({ baseUrl: running.address, apiKey: "wrong" });
  await assert.rejects(stranger.vms.exec("web", { argv: ["echo"] }), { code: "unauthorized" });
  await assert.rejects(volant.vms.exec("web", { argv: ["echo"] }, { signal: AbortSignal.abort() }), {
    name: "AbortError",
  });
});
