/** A host that can't have another process: a start waits, says why, is no crash, and is made once there is room. In a cgroup of the test's own. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace } from "../namespace.ts";
import { StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

/** Where the pids controller is mounted: by itself (version 1), or with all others (version 2). */
const HIERARCHIES = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
const FULL = /this host can't have another process/;
let at: StandInHouse;
let group: string | undefined;

before(async () => {
  at = await StandInHouse.open();
});

after(async () => {
  await at?.close();
  // Hypervisors that were started in it have ended by now.
  if (group !== undefined) rmdirSync(group);
});

/** A group that bounds how many processes and threads there are in it; undefined where this machine lets nobody make one. */
function makeGroup(): string | undefined {
  for (const hierarchy of HIERARCHIES) {
    const made = join(hierarchy, `volant-test-${process.pid}`);
    try {
      mkdirSync(made);
    } catch {
      continue;
    }
    if (existsSync(join(made, "pids.max"))) return made;
    rmdirSync(made);
  }
  return undefined;
}

test("with the process table full a VM waits with a reason and is no crash, the others go on, and it starts once there is room", async (t) => {
  group = makeGroup();
  if (group === undefined) {
    t.skip("no cgroup with the pids controller can be made here");
    return;
  }
  const limit = (most: string) => writeFileSync(join(group as string, "pids.max"), most);
  await at.create("steady");
  const steady = await at.untilUp("steady");
  writeFileSync(join(group, "cgroup.procs"), String(at.house.volantdPid));
  // Its threads, and no child that happens to be there.
  limit(String(readdirSync(`/proc/${at.house.volantdPid}/task`).length));
  try {
    // The one can't have its tap held to an address, the other needs no tap, and can't have its hypervisor.
    await at.create("bridged");
    const body = { name: "vsock", plugin: "probe", memory_mb: 96, config: { network: { mode: "vsock" } } };
    await at.ask(201, "POST", "vms", body);
    for (const name of ["bridged", "vsock"]) {
      const { status } = await at.untilVm(name, ({ reason = "" }) => FULL.test(reason));
      assert.equal(status, "pending", name);
    }
    assert.equal((await at.ask<Vm>(200, "GET", "vms/steady")).pid, steady.pid);
  } finally {
    limit("max");
  }
  for (const name of ["bridged", "vsock"]) await at.untilUp(name);
  for (const name of ["bridged", "vsock", "steady"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});
