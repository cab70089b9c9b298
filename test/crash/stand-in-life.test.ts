/** volantd with the stand-in hypervisor, real netlink and a real store: many VMs, a restart in the middle, nothing left; and guests that misbehave. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { enterOwnNamespace, ipJson } from "../namespace.ts";
import { eventOf, fetchInTime } from "../patience.ts";
import { inParallel, StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

const VMS = 20;
const MOST_RESIDENT_KIB = 1536;
const names = Array.from({ length: VMS }, (_none, index) => `vm-${index}`);
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open();
});

after(async () => {
  await at?.close();
});

function residentKib(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

test("twenty VMs are created at once, outlive volantd, are adopted by the next, and leave nothing when they are deleted", async () => {
  await inParallel(VMS, names, async (name) => void (await at.create(name)));
  await at.until((vms) => vms.length === VMS && vms.every(({ status }) => status === "running"));
  const before = await at.list();
  assert.equal(new Set(before.map(({ ip_address }) => ip_address)).size, VMS);
  const taps = ipJson("link", "show").filter((link) => String(link["ifname"]).startsWith("vttap-"));
  assert.equal(taps.length, VMS);
  for (const tap of taps)
    assert.ok((tap["flags"] as string[]).includes("LOWER_UP"), "the hypervisor holds the tap open");
  for (const { pid = 0 } of before) {
    assert.ok(residentKib(pid) <= MOST_RESIDENT_KIB, `${residentKib(pid)} KiB are resident`);
    assert.match(readFileSync(`/proc/${pid}/status`, "utf8"), /^CapEff:\t0+$/m, "it is confined as QEMU is");
  }

  const metrics = await (await fetchInTime("http://127.0.0.1:7777/metrics")).text();
  for (const sample of [
    'volant_vms{status="running"}',
    'volant_addresses{state="held"}',
    'volant_vm_start_seconds_count{phase="all"}',
  ])
    assert.ok(metrics.includes(`${sample} ${VMS}\n`), `${sample} is ${VMS} in ${metrics}`);
  assert.equal((await fetchInTime("http://127.0.0.1:7777/readyz")).status, 200);

  await at.house.stopVolantd("SIGKILL");
  await at.house.startVolantd();
  await at.untilAttached((vms) => vms.every(({ status, agent }) => status === "running" && agent.attached));
  const pids = (vms: typeof before): unknown => vms.map(({ name, pid }) => [name, pid]).sort();
  assert.deepEqual(pids(await at.list()), pids(before), "the same processes");

  await inParallel(VMS, names, (name) => at.delete(name));
  assert.deepEqual(at.leaks(), []);
});

test("guests do wrong what they are told to", async () => {
  await at.create("silent", "standin.silent");
  await at.create("ill", "standin.unhealthy");
  await at.create("panicking", "standin.panic_after_ms=300");
  await at.create("leaving", "standin.poweroff_after_ms=300");
  await at.create("hanging", "standin.hang_after_ms=0");
  const said = new Map<string, string>();
  await at.until((vms) => {
    for (const { name, status, reason } of vms) said.set(name, `${status}: ${reason ?? ""}`);
    return (
      said.get("silent") === "starting: waiting_for_agent" &&
      said.get("ill") === "starting: waiting_for_health" &&
      /^crashed: .*panicked: the stand-in was told to panic/.test(said.get("panicking") ?? "") &&
      said.get("leaving")?.startsWith("stopped") === true &&
      said.get("hanging") === "starting: waiting_for_agent"
    );
  });
  await inParallel(5, [...said.keys()], (name) => at.delete(name));
  assert.deepEqual(at.leaks(), []);
});

test("a misspelt fault is refused at the start, in a sentence", async () => {
  await at.create("misspelt", "standin.panick");
  await at.until((vms) => vms.some(({ reason = "" }) => /standin\.panick is no fault/.test(reason)));
  await at.delete("misspelt");
  assert.deepEqual(at.leaks(), []);
});

/** A connection, and what has come over it. */
class Conversation {
  readonly #socket: Socket;
  #heard = "";

  constructor(path: string) {
    this.#socket = connect(path);
    this.#socket.setEncoding("utf8").on("data", (text: string) => (this.#heard += text));
  }

  get heard(): string {
    return this.#heard;
  }

  /** Says something, and resolves once all that was heard so far holds `answer`. */
  async say(text: string, answer: string): Promise<void> {
    this.#socket.write(text);
    while (!this.#heard.includes(answer))
      await eventOf(this.#socket, "data", `the answer ${answer}`, () => this.#heard);
  }

  close(): void {
    this.#socket.destroy();
  }
}

test("a stopped machine's guest stands still and goes on when it may; one that ignores its shutdown is ended by force", async () => {
  await at.create("paused", "standin.ignore_shutdown");
  await at.until((vms) => vms.some(({ status }) => status === "running"));
  const { id } = await at.ask<{ readonly id: number }>(200, "GET", "vms/paused");
  // A hypervisor talks to one client at a time, and volantd is it.
  await at.house.stopVolantd();
  const path = (name: string): string => join(at.house.directory, "run", String(id), name);
  const command = (execute: string): string => `${JSON.stringify({ execute })}\n`;
  const monitor = new Conversation(path("qmp"));
  const stream = new Conversation(path("stream"));
  const control = new Conversation(path("control"));
  const nonce = "0123456789abcdef".repeat(2);
  const identity = { vm_id: id, name: "paused", hostname: "paused" };
  const now = new Date().toISOString();
  const hello = { type: "hello", protocol: 2, nonce, generation: 1, wall_time: now, beat_ms: 1000, identity };
  await monitor.say("", '"QMP"');
  await monitor.say(command("qmp_capabilities"), '"return":{}');
  await monitor.say(command("stop"), '"STOP"');
  const answered = control.say(`\n${JSON.stringify(hello)}\n`, `"nonce":"${nonce}"`);
  // The command came after the hello: who answers it could have answered that.
  await monitor.say(command("query-status"), '"paused"');
  assert.ok(!control.heard.includes(nonce), control.heard);
  await monitor.say(command("cont"), '"RESUME"');
  await answered;
  assert.match(control.heard, /"type":"ack"/);
  await monitor.say(command("nosuch"), '"CommandNotFound"');
  for (const conversation of [monitor, stream, control]) conversation.close();
  await at.house.startVolantd();
  await at.delete("paused");
  assert.deepEqual(at.leaks(), []);
});
