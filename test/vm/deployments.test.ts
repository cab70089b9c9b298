/** A deployment of real guests: made, changed one after the other, each reached at its own address all along, and gone. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Deployment, Vm } from "@volant/contract";
import { enterOwnNamespace, ipJson } from "../namespace.ts";
import { type House, openHouse } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

let house: House;

before(async () => {
  house = await openHouse();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
});

after(async () => {
  await house?.close();
});

/** What a replica's workload serves. The connection is not kept: the guest behind an address is started anew in between. */
async function page(address: string): Promise<string> {
  const signal = AbortSignal.timeout(60_000);
  return (await fetch(`http://${address}/`, { signal, headers: { connection: "close" } })).text();
}

const identity = ({ id, name, ip_address, mac_address }: Vm): unknown[] => [id, name, ip_address, mac_address];

test("two replicas are made, changed where they are, and removed without a trace", async () => {
  const made = ["deployments", "create", "web", "--plugin", "probe", "--replicas", "2", "--wait=5m"];
  const created = await house.volarJson<Deployment>(...made);
  assert.deepEqual([created.ready_replicas, created.rollout], [2, { state: "complete" }]);
  const before = await house.vms();
  assert.deepEqual(
    before.map(({ name, deployment }) => [name, deployment]),
    [
      ["web-1", "web"],
      ["web-2", "web"],
    ],
  );
  for (const vm of before) assert.equal(await page(vm.ip_address), "probe\n");

  const changed = await house.volarJson<Deployment>(
    "deployments",
    "update",
    "web",
    "--env",
    "COLOUR=blue",
    "--wait=5m",
  );
  assert.deepEqual([changed.version, changed.updated_replicas, changed.ready_replicas], [2, 2, 2]);
  const after = await house.vms();
  assert.deepEqual(after.map(identity), before.map(identity));
  for (const { name, ip_address: address } of after) {
    assert.equal(await page(address), "probe\n");
    const environment = await house.volarDone("vms", "exec", name, "--", "/bin/busybox", "env");
    assert.match(environment, /^COLOUR=blue$/m);
  }

  await house.volarDone("deployments", "delete", "web");
  assert.deepEqual(await house.vms(), []);
  assert.deepEqual(await house.hypervisors(), []);
  const taps = ipJson("link", "show").filter((link) => String(link["ifname"]).startsWith("vttap-"));
  assert.deepEqual(taps, []);
});
