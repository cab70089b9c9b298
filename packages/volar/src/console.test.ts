/** `volar vms console` as a user runs it, with and without a terminal, and the SDK's WebSocket: against a Unix socket in the place of QEMU's. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { VolantClient } from "@volant/sdk";
import { until } from "../../../test/patience.ts";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";

const entry = join(import.meta.dirname, "main.ts");
const directory = mkdtempSync(join(tmpdir(), "volar-console-"));
const path = join(directory, "serial");
const ports: Socket[] = [];
const qemu = createServer((socket) => ports.push(socket.on("error", () => {})));
let running: RunningApi;

before(async () => {
  qemu.listen(path);
  await once(qemu, "listening");
  running = await runApi({ apiKey: "k" });
  running.serials.set((await running.useCases.vms.create({ name: "web" })).id, path);
});
after(async () => {
  await running.api.close();
  qemu.close();
  rmSync(directory, { recursive: true });
  assert.deepEqual(running.errors, []);
});

const environment = () => ({
  PATH: process.env["PATH"],
  TERM: "xterm",
  VOLANT_API_BASE: running.address,
  VOLANT_API_KEY: "k",
});

async function port(): Promise<Socket> {
  await until("the serial port is connected", () => ports.length > 0);
  const socket = ports.pop();
  assert.ok(socket !== undefined);
  return socket;
}

/** What a child prints; and its end. */
function output(child: ChildProcess): { text: string; readonly code: Promise<number | null> } {
  const seen = { text: "", code: new Promise<number | null>((resolve) => child.once("close", resolve)) };
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (part: string) => (seen.text += part));
  }
  return seen;
}

test("on a terminal every key goes to the guest, Ctrl-C included, until Ctrl-] leaves", async () => {
  // util-linux's script(1) gives it a terminal; it runs one shell command, in which nothing comes from outside.
  const command = `'${process.execPath}' '${entry}' vms console web`;
  const child = spawn("script", ["--quiet", "--return", "--command", command, "/dev/null"], { env: environment() });
  const seen = output(child);
  const serial = await port();
  await until("it says how to leave", () => seen.text.includes('console of VM "web": Ctrl-] leaves it'));
  serial.write("login: ");
  await until("what the guest prints is shown", () => seen.text.includes("login: "));
  child.stdin.write("root\r\u0003");
  let typed = "";
  serial.on("data", (bytes: Buffer) => (typed += bytes.toString()));
  await until("it is typed", () => typed === "root\r\u0003");
  child.stdin.write("x\u001dy");
  assert.equal(await seen.code, 0);
  assert.equal(typed, "root\r\u0003x");
  child.stdin.destroy();
});

test("without a terminal, bytes go both ways as they are, to the VM's end", async () => {
  const child = spawn(process.execPath, [entry, "vms", "console", "web"], { env: environment() });
  const seen = output(child);
  child.stdin.end("a\u001db");
  const serial = await port();
  assert.equal(String((await once(serial, "data"))[0]), "a\u001db");
  serial.end("bye\n");
  assert.equal(await seen.code, 0);
  assert.equal(seen.text, "bye\n");
});

test("a console that can't be opened is refused in a sentence", async () => {
  const child = spawn(process.execPath, [entry, "vms", "console", "none"], { env: environment() });
  const seen = output(child);
  assert.equal(await seen.code, 1);
  assert.match(seen.text, /^volar: .*"none"/);
  const key = spawn(process.execPath, [entry, "vms", "console", "web", "--escape", "x"], { env: environment() });
  assert.equal(await output(key).code, 2);
});

test("the SDK has it as web streams, over a WebSocket, and says why there is none", async () => {
  const volant = new VolantClient({ baseUrl: running.address, apiKey: "k" });
  const console = await volant.vms.console("web");
  const serial = await port();
  const writer = console.writable.getWriter();
  await writer.write(new TextEncoder().encode("hi"));
  assert.equal(String((await once(serial, "data"))[0]), "hi");
  serial.end("there");
  assert.equal(await text(console.readable), "there");
  await assert.rejects(volant.vms.console("none"), { code: "not_found" });
  await running.useCases.vms.create({ name: "off" });
  running.move("off", "stopped");
  await assert.rejects(volant.vms.console("off"), { code: "wrong_state" });
});
