/** What others do to links while volantd does not look, or before it gets there: each ends in a state that says so, and all is well once they have stopped. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { closeTap, openTap } from "@volant/netlink";
import { GuestPolicy } from "../../packages/host/src/policy/guest-policy.ts";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

/** Changes of a link that are tried, at most, until the kernel has dropped one that was meant for volantd. */
const MOST_CHANGES = 200_000;
const CHANGES_AT_ONCE = 2000;
const PLENTY = 20_000;
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open();
});

after(async () => {
  await at?.close();
});

async function running(name: string): Promise<Vm> {
  await at.create(name);
  return await at.untilUp(name);
}

function tapOf(vm: Vm): string {
  const { tap } = vm.network;
  assert.ok(tap !== undefined);
  return tap;
}

/** Messages that the kernel dropped since a netlink socket of this namespace was full: the ninth column of /proc/net/netlink. */
function dropped(): number {
  const lines = readFileSync(`/proc/${at.house.volantdPid}/net/netlink`, "utf8").trim().split("\n").slice(1);
  return lines.reduce((sum, line) => sum + Number(line.trim().split(/\s+/)[8]), 0);
}

function isTapUp(name: string): boolean {
  return ipJson("link", "show", "dev", name).some(({ flags }) => (flags as string[]).includes("UP"));
}

test("changes that are lost since the kernel has no room for more events are found all the same", async () => {
  const steady = await running("steady");
  const tap = tapOf(steady);
  ip("link", "add", "noise", "type", "bridge");
  const before = dropped();
  const batch = "link set noise up\nlink set noise down\n".repeat(CHANGES_AT_ONCE / 2);
  process.kill(at.house.volantdPid, "SIGSTOP");
  try {
    for (let done = 0; dropped() === before; done += CHANGES_AT_ONCE) {
      assert.ok(done < MOST_CHANGES, `nothing is dropped after ${done} changes`);
      execFileSync("ip", ["-batch", "-"], { input: batch });
    }
    // Nobody is told of this one.
    ip("link", "set", tap, "down");
  } finally {
    process.kill(at.house.volantdPid, "SIGCONT");
  }
  await at.untilUp("steady", () => isTapUp(tap));
  ip("link", "delete", "noise");
  await at.delete("steady");
  assert.deepEqual(at.leaks(), []);
});

test("a link of somebody else's with the tap's name is left alone and named as the reason, and the VM starts once it is gone", async () => {
  const tap = tapOf(await running("named"));
  await at.ask(200, "POST", "vms/named/stop");
  await at.untilVm("named", ({ status }) => status === "stopped");
  assert.deepEqual(
    ipJson("link", "show").filter(({ ifname }) => ifname === tap),
    [],
  );
  ip("link", "add", tap, "type", "bridge");
  await at.ask(200, "POST", "vms/named/start");
  const { status } = await at.untilVm("named", ({ reason = "" }) =>
    reason.includes(`a link named ${tap} exists that is not this VM's: it is left alone`),
  );
  assert.equal(status, "pending");
  assert.equal(ipJson("link", "show", "dev", tap).length, 1);
  ip("link", "delete", tap);
  await at.untilUp("named");
  await at.delete("named");
  assert.deepEqual(at.leaks(), []);
});

test("what an installation that is gone left of a VM of the same name: its rules give way, and its tap is named with what to do", async () => {
  const vm = await running("heir");
  const tap = tapOf(vm);
  await at.ask(200, "POST", "vms/heir/stop");
  await at.untilVm("heir", ({ status }) => status === "stopped");
  const gone = new GuestPolicy({ installation: "ffff0000", nft: "/usr/sbin/nft" });
  await gone.put([{ vmId: 1, tap, mac: "02:78:00:00:00:01", mode: "bridged", addresses: [], antiSpoof: false }]);
  ip("tuntap", "add", "dev", tap, "mode", "tap");
  ip("link", "set", tap, "alias", "volant:ffff0000:1");
  await at.ask(200, "POST", "vms/heir/start");
  const { reason } = await at.untilVm("heir", ({ reason: why = "" }) => why.includes("another Volant installation"));
  assert.match(reason ?? "", new RegExp(`the tap ${tap} .* ip link delete dev ${tap}$`));
  const { stdout } = await at.house.volar("doctor");
  assert.match(stdout, new RegExp(`the tap ${tap} of VM 1 has no hypervisor.*\\n.*ip link delete dev ${tap}`));
  assert.notEqual((await gone.observe()).elements.length, 0, "the rules of a tap that is there gave way");
  ip("link", "delete", tap);
  await at.untilUp("heir");
  assert.deepEqual((await gone.observe()).elements, []);
  await at.delete("heir");
  assert.deepEqual(at.leaks(), []);
});

test("a tap that another program holds open is said, and the VM starts once that program lets go", async () => {
  const tap = tapOf(await running("held"));
  await at.ask(200, "POST", "vms/held/stop");
  await at.untilVm("held", ({ status }) => status === "stopped");
  // Held up between the making of its tap and its launch.
  setFileLimit(100);
  await at.ask(200, "POST", "vms/held/start");
  await at.untilVm("held", ({ reason = "" }) => /files open/.test(reason));
  const fd = await openTap(tap);
  try {
    setFileLimit(PLENTY);
    const { status } = await at.untilVm("held", ({ reason = "" }) => reason.includes(`the tap ${tap}`));
    assert.equal(status, "pending");
  } finally {
    await closeTap(fd);
  }
  await at.untilUp("held");
  await at.delete("held");
  assert.deepEqual(at.leaks(), []);
});

function setFileLimit(limit: number): void {
  execFileSync("prlimit", [`--nofile=${limit}:${PLENTY}`, "--pid", String(at.house.volantdPid)]);
}
