/** `volar top` as a user runs it, against a real API over loopback; each reading of its stand-in is a second after the one before. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import test, { after, before } from "node:test";
import { eventOf } from "../../../test/patience.ts";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";
import { VOLAR_ENTRY } from "./testing/run-volar.ts";

let running: RunningApi;

before(async () => {
  running = await runApi();
  for (const name of ["one", "two", "off"]) await running.useCases.vms.create({ name });
  for (const name of ["one", "two"]) running.move(name, "running");
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

function start(
  command: string,
  args: readonly string[],
): { child: ChildProcess; text: () => string; ended: Promise<number | null> } {
  const env = { PATH: process.env["PATH"], TERM: "xterm", VOLANT_API_BASE: running.address };
  const child = spawn(command, args, { env });
  let text = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (part: string) => (text += part));
  return { child, text: () => text, ended: new Promise((resolve) => child.once("close", resolve)) };
}

const volar = (...args: string[]) => start(process.execPath, [VOLAR_ENTRY, ...args]);

async function until(started: ReturnType<typeof start>, isSo: (text: string) => boolean): Promise<void> {
  const { stdout } = started.child;
  assert.ok(stdout !== null);
  while (!isSo(started.text())) await eventOf(stdout, "data", "more of volar top", started.text);
}

test("--once shows what was used in one interval, the greatest first, for people and for programs", async () => {
  const table = volar("top", "--once", "--interval", "50ms");
  assert.equal(await table.ended, 0, table.text());
  assert.match(
    table.text(),
    /^NAME +CPU +CORES .*\ntwo +20\.0 % .* 2\.0 KiB\/s +1\.0 KiB\/s +1002\none +10\.0 % .*\n$/,
  );
  const json = volar("top", "one", "--once", "--interval", "50ms", "--output", "json");
  assert.equal(await json.ended, 0, json.text());
  const [rate, ...others] = JSON.parse(json.text()) as Record<string, unknown>[];
  assert.deepEqual(
    [others.length, rate?.["name"], rate?.["cpu_percent"], rate?.["rx_bytes_per_second"], rate?.["memory_bytes"]],
    [0, "one", 10, 2048, 1_048_576],
  );
  const names = volar("top", "--once", "--interval", "50ms", "--quiet", "--sort", "name");
  assert.equal(await names.ended, 0);
  assert.equal(names.text(), "one\ntwo\n");
});

test("without a terminal, one document follows the other until it is interrupted", async () => {
  const started = volar("top", "--interval", "50ms", "--output", "json");
  await until(started, (text) => text.split("\n").length > 3);
  started.child.kill("SIGINT");
  await started.ended;
  const [first = ""] = started.text().split("\n");
  assert.deepEqual(
    (JSON.parse(first) as { name: string }[]).map(({ name }) => name),
    ["two", "one"],
  );
});

test("on a terminal the screen is taken, drawn anew, and given back at q", async () => {
  const command = `stty rows 24 cols 100; "${process.execPath}" "${VOLAR_ENTRY}" top --interval 50ms`;
  const started = start("script", ["-qec", command, "/dev/null"]);
  await until(started, (text) => text.split("\u001b[H").length > 3);
  started.child.stdin?.write("q");
  assert.equal(await started.ended, 0, started.text());
  assert.match(started.text(), /2 VMs run: 30\.0 % of a core/);
  assert.ok(started.text().startsWith("\u001b[?1049h"));
  assert.ok(started.text().trimEnd().endsWith("\u001b[?25h\u001b[?1049l"));
});

test("a name that does not exist is said, with the nearest that does", async () => {
  const started = volar("top", "onne", "--once");
  assert.equal(await started.ended, 1);
  assert.equal(started.text(), 'volar: there is no VM "onne"\n  did you mean one?\n');
});
