/** A guest that forges, with a real virtio-net card: its peer and the LAN see nothing of it, and what it may send arrives. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { Vm } from "@volant/contract";
import { watchPackets } from "@volant/netlink";
import { BRIDGED, finished, FORGERIES, type Forgery, LEGITIMATE, PEER } from "../kernel/policy-forgeries.ts";
import { addressBytes, fixHeader, macBytes } from "../kernel/policy-frames.ts";
import { learnedMacs, Port } from "../kernel/policy-lan.ts";
import { enterOwnNamespace, ipJson } from "../namespace.ts";
import { fetchInTime, within } from "../patience.ts";
import { type House, openHouse, root, testedPrograms } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const FRAMES_PER_KIND = 25;
const PATIENCE_MS = 120_000;
const KINDS = FORGERIES.filter(({ from }) => from === "bridged");
/** Addresses of nobody, which the bridge learns where nothing keeps it from that. */
const FOREIGN = KINDS.flatMap(({ teaches }) => teaches ?? []).filter((mac) => mac !== PEER.mac);
/** Frames that it may send, one for each way through the guard: behind them nothing that was sent before is under way. */
const FENCES = LEGITIMATE.filter(({ name }) => ["UDP", "ICMP whose checksum the host fills in"].includes(name));

let house: House;
let isOpen = false;
let peer: Vm;
let forger: string;
/** Ports that stand for a machine on the LAN, and for what comes to the peer. */
let outside: Port;

before(async () => {
  house = await openHouse();
  isOpen = true;
  forger = join(house.directory, "forger");
  const target = ["--target", "x86_64-unknown-linux-gnu", "-C", "target-feature=+crt-static"];
  execFileSync("rustc", ["--edition", "2024", "-O", ...target, "-o", forger, join(root, "test/vm/forger.rs")]);
  // Nothing but the policy may drop a frame.
  for (const table of ["iptables", "ip6tables", "arptables"]) {
    writeFileSync(`/proc/sys/net/bridge/bridge-nf-call-${table}`, "0");
  }
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
  peer = await house.volarJson<Vm>("vms", "create", "peer", "--plugin", "probe", "--wait");
  outside = await Port.open("outside0", undefined);
});

after(async () => {
  if (!isOpen) return;
  outside?.[Symbol.dispose]();
  await house.close();
});

async function exec(vm: Vm, argv: readonly string[], input: Buffer | string): Promise<string> {
  const child = spawn(join(testedPrograms, "volar"), ["vms", "exec", vm.name, "--", ...argv], {
    env: house.environment,
  });
  child.stdin.end(input);
  const all = Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  const [stdout, stderr, [code]] = await within(all, `the end of ${argv.join(" ")} in ${vm.name}`);
  assert.equal(code, 0, `${argv.join(" ")}: ${stderr}`);
  return stdout;
}

async function makeForger(...flags: string[]): Promise<Vm> {
  const vm = await house.volarJson<Vm>("vms", "create", "evil", "--plugin", "probe", "--wait", ...flags);
  await exec(vm, ["sh", "-c", "busybox cat > /bin/forger && busybox chmod 755 /bin/forger"], readFileSync(forger));
  return vm;
}

/** The frame of the catalogue with this VM's and the peer's addresses in the place of the catalogue's. */
function translate(frame: Buffer, vm: Vm): Buffer {
  const bytes = Buffer.from(frame);
  for (const [from, to] of [
    [macBytes(BRIDGED.mac), macBytes(vm.mac_address)],
    [macBytes(PEER.mac), macBytes(peer.mac_address)],
    [addressBytes(BRIDGED.address), addressBytes(vm.ip_address)],
    [addressBytes(PEER.address), addressBytes(peer.ip_address)],
  ] as const) {
    for (let at = bytes.indexOf(from); at !== -1; at = bytes.indexOf(from, at + to.length)) to.copy(bytes, at);
  }
  return fixHeader(bytes);
}

let sent = 0;
const came: Buffer[] = [];

/** Has the guest send each frame so many times, and then what it may send; gives the marks of each once that is outside. */
async function forge(vm: Vm, kinds: readonly Forgery[], times: number): Promise<Map<string, string[]>> {
  const marks = new Map<string, string[]>();
  const lines: string[] = [];
  const add = (forgery: Forgery): string => {
    const mark = `volant-test-frame-${(sent += 1)};`;
    const header = forgery.header ?? Buffer.alloc(10);
    const frame = finished(forgery, translate(forgery.frame(Buffer.from(mark)), vm));
    lines.push(Buffer.concat([header, frame]).toString("hex"));
    return mark;
  };
  for (const forgery of kinds)
    marks.set(
      forgery.name,
      Array.from({ length: times }, () => add(forgery)),
    );
  assert.equal(FENCES.length, 2);
  const fences = FENCES.map(add);
  const said = await exec(vm, ["/bin/forger", "eth0"], `${lines.join("\n")}\n`);
  assert.equal(Number(said), lines.length);
  const deadline = Date.now() + PATIENCE_MS;
  while (!fences.every(arrived)) {
    assert.ok(Date.now() < deadline, "what the guest may send does not arrive");
    await delay(10);
  }
  return marks;
}

function arrived(mark: string): boolean {
  came.push(...outside.received());
  return came.some((bytes) => bytes.includes(mark));
}

/** Watches what comes to the peer, as its tap shows it. */
function watchPeer(onFrame: (frame: Buffer) => void): { close(): void } {
  const link = Number(ipJson("link", "show", "dev", String(peer.network.tap))[0]?.["ifindex"]);
  return watchPackets({
    link,
    filter: [[0x06, 0, 0, 4096]],
    onFrame: ({ direction, frame }) => {
      if (direction === "out") onFrame(frame);
    },
    onEnd: () => assert.fail("the peer's tap is gone"),
  });
}

test("a guest that the operator lets be anybody is: every kind of frame arrives outside", async () => {
  const vm = await makeForger("--allow-spoofing");
  assert.deepEqual(vm.policy, { anti_spoof: false });
  const marks = await forge(vm, KINDS, 1);
  for (const { name, linkLocal } of KINDS) {
    assert.deepEqual(marks.get(name)?.map(arrived), [linkLocal !== true], name);
  }
  for (const mac of FOREIGN) assert.ok(learnedMacs().includes(mac), mac);
  await house.volarDone("vms", "delete", "evil");
});

test("a guest that is held to its address forges in vain: more than a thousand frames of every kind, none arrives, none teaches", async () => {
  const vm = await makeForger();
  assert.deepEqual(vm.policy, { anti_spoof: true });
  const atPeer: Buffer[] = [];
  const watch = watchPeer((frame) => atPeer.push(Buffer.from(frame)));
  const marks = await forge(vm, KINDS, FRAMES_PER_KIND);
  let count = 0;
  for (const [name, list] of marks) {
    for (const mark of list) {
      assert.ok(!arrived(mark), `${name} arrived outside`);
      assert.ok(!atPeer.some((frame) => frame.includes(mark)), `${name} arrived at the peer`);
      count += 1;
    }
  }
  watch.close();
  assert.ok(KINDS.length >= 15 && count >= 1000, `${KINDS.length} kinds, ${count} frames`);
  assert.deepEqual(
    learnedMacs().filter((mac) => FOREIGN.includes(mac)),
    [],
  );
  const counted = KINDS.filter(({ uncounted }) => uncounted !== true).length * FRAMES_PER_KIND;
  // Who asks often is told an older count, and is not held up by the next.
  const deadline = Date.now() + PATIENCE_MS;
  let shown = await house.volarJson<Vm>("vms", "get", "evil");
  while ((shown.network.dropped_frames ?? 0) < counted && Date.now() < deadline)
    shown = await house.volarJson<Vm>("vms", "get", "evil");
  assert.ok(
    (shown.network.dropped_frames ?? 0) >= counted,
    `${shown.network.dropped_frames} of ${counted} are counted`,
  );
  const other = await house.volarJson<Vm>("vms", "get", "peer");
  assert.ok((other.network.dropped_frames ?? -1) < counted);
});

test("what it may send arrives all the same: it serves its page, and reaches its peer and the host", async () => {
  const vm = await house.volarJson<Vm>("vms", "get", "evil");
  const page = (path: string) => fetchInTime(`http://${vm.ip_address}/${path}`).then((answer) => answer.text());
  assert.equal(await page(""), "probe\n");
  assert.match(await page(`cgi-bin/ping?${peer.ip_address}`), /exit code 0/);
  assert.match(await page("cgi-bin/ping?192.168.127.1"), /exit code 0/);
});

const table = () =>
  execFileSync("nft", ["list", "table", "bridge", "volant"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });

test("it is held while volantd is dead, and again after somebody has flushed all rules", async () => {
  const vm = await house.volarJson<Vm>("vms", "get", "evil");
  await house.stopVolantd("SIGKILL");
  const held = table();
  assert.match(
    held,
    new RegExp(`"vttap-evil" \\. ${vm.mac_address} \\. ${vm.ip_address.replaceAll(".", "\\.")} comment`),
  );
  assert.match(execFileSync("tc", ["qdisc", "show", "dev", "vttap-evil"], { encoding: "utf8" }), /ingress_block/);
  assert.equal(await (await fetchInTime(`http://${vm.ip_address}/`)).text(), "probe\n");
  await house.startVolantd();
  await house.volarDone("vms", "wait", "evil");
  execFileSync("nft", ["flush", "ruleset"]);
  execFileSync("tc", ["qdisc", "delete", "dev", "vttap-evil", "ingress"]);
  const isHeld = () => {
    try {
      const qdiscs = execFileSync("tc", ["qdisc", "show", "dev", "vttap-evil"], { encoding: "utf8" });
      return (
        table().includes(`"vttap-evil" . ${vm.mac_address} . ${vm.ip_address}`) && qdiscs.includes("ingress_block")
      );
    } catch {
      return false;
    }
  };
  const deadline = Date.now() + PATIENCE_MS;
  while (!isHeld()) {
    assert.ok(Date.now() < deadline, `it is not held again: ${house.log.slice(-2000)}`);
    await delay(50);
  }
  const marks = await forge(vm, KINDS, 1);
  for (const [name, list] of marks) assert.ok(!list.some(arrived), name);
});

test("a VM's entry goes with it, and with the set-up goes the rest", async () => {
  const { id, network } = await house.volarJson<Vm>("vms", "get", "evil");
  assert.ok(table().includes(`:${id}"`) && network.tap !== undefined);
  await house.volarDone("vms", "delete", "evil");
  assert.ok(!table().includes("vttap-evil"));
  await house.volarDone("vms", "delete", "peer");
  outside[Symbol.dispose]();
  await house.close();
  isOpen = false;
  assert.equal(execFileSync("nft", ["list", "tables", "bridge"], { encoding: "utf8" }), "");
  assert.deepEqual(
    ipJson("link", "show").map((link) => link["ifname"]),
    ["lo"],
  );
});
