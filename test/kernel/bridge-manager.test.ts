import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { Netlink } from "@volant/netlink";
import { BridgeManager } from "../../packages/volantd/src/network/bridge-manager.ts";
import { PolicyKeeper } from "../../packages/volantd/src/network/policy-keeper.ts";
import type { MarkedTap } from "../../packages/volantd/src/network/network-manager.ts";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

const UID = 1_900_000_007;
let manager: BridgeManager;

before(async () => {
  ip("link", "add", "vbr0", "type", "bridge");
  ip("address", "add", "10.9.0.1/24", "dev", "vbr0");
  const netlink = await Netlink.open();
  manager = new BridgeManager({
    netlink,
    policy: new PolicyKeeper({ netlink, installation: "abcdef01" }),
    installation: "abcdef01",
    bridge: "vbr0",
    hostAddress: "10.9.0.1",
    lans: { check: async () => undefined, made: async () => [] },
    restore: async () => [],
  });
});

after(() => manager.close());

async function tapOf(vmId: number): Promise<MarkedTap> {
  const tap = (await manager.observe()).taps.find((other) => other.vmId === vmId);
  assert.ok(tap !== undefined);
  return tap;
}

const exists = (name: string) => ipJson("link", "show").some((link) => link["ifname"] === name);

test("the bridge is seen as it is, down and then up", async () => {
  const common = { managed: true, bridgeName: "vbr0" } as const;
  assert.deepEqual((await manager.observe()).network, { ...common, bridge: "down", addressed: true });
  await manager.bringBridgeUp();
  assert.deepEqual((await manager.observe()).network, { ...common, bridge: "up", addressed: true });
  ip("address", "delete", "10.9.0.1/24", "dev", "vbr0");
  assert.deepEqual((await manager.observe()).network, { ...common, bridge: "up", addressed: false });
  ip("address", "add", "10.9.0.1/24", "dev", "vbr0");
});

test("a tap is a persistent tap with vnet_hdr on the bridge, up, with our mark, owned by its hypervisor's user", async () => {
  await manager.createTap({ vmId: 7, name: "vttap-web", uid: UID });
  const [link] = ipJson("link", "show", "dev", "vttap-web");
  assert.ok(link !== undefined);
  assert.equal(link["master"], "vbr0");
  assert.equal(link["ifalias"], "volant:abcdef01:7");
  assert.ok((link["flags"] as string[]).includes("UP"));
  const info = link["linkinfo"] as { info_kind: string; info_data: Record<string, unknown> };
  assert.equal(info.info_kind, "tun");
  assert.deepEqual(
    { type: info.info_data["type"], vnet: info.info_data["vnet_hdr"], persist: info.info_data["persist"] },
    { type: "tap", vnet: true, persist: true },
  );
  assert.equal(Number(info.info_data["user"]), UID);
  assert.equal(info.info_data["pi"], false);
  const tap = await tapOf(7);
  assert.deepEqual(tap, {
    vmId: 7,
    index: link["ifindex"] as number,
    name: "vttap-web",
    up: true,
    bridge: "vbr0",
    usable: true,
    guarded: false,
    owner: UID,
  });
  assert.deepEqual(
    ipJson("address", "show", "dev", "vttap-web").flatMap((entry) => entry["addr_info"] as unknown[]),
    [],
    "the host has no address on a guest's wire",
  );
});

test("a name that is taken is an error, and what has it stays", async () => {
  await assert.rejects(manager.createTap({ vmId: 8, name: "vttap-web", uid: UID }), { code: "exists" });
  assert.equal((await tapOf(7)).name, "vttap-web");
});

test("a tap that was taken down and off the bridge is repaired in place", async () => {
  ip("link", "set", "vttap-web", "down", "nomaster");
  const broken = await tapOf(7);
  assert.deepEqual([broken.up, broken.bridge], [false, undefined]);
  await manager.repairTap(broken);
  const repaired = await tapOf(7);
  assert.deepEqual([repaired.up, repaired.bridge, repaired.index], [true, "vbr0", broken.index]);
});

test("a tap joins another bridge where it is asked to, is seen there, and is moved back to it; that bridge is not changed", async () => {
  await assert.rejects(manager.checkReady("vttap-lan", "br-lan"), { code: "not_ready", hint: /network\.bridge/ });
  ip("link", "add", "br-lan", "type", "bridge");
  await manager.checkReady("vttap-lan", "br-lan");
  await manager.createTap({ vmId: 11, name: "vttap-lan", uid: UID, bridge: "br-lan" });
  assert.equal((await tapOf(11)).bridge, "br-lan");
  assert.deepEqual([...(await manager.observe()).otherBridges], [["br-lan", "down"]]);
  ip("link", "set", "vttap-lan", "master", "vbr0");
  await manager.repairTap(await tapOf(11), "br-lan");
  assert.equal((await tapOf(11)).bridge, "br-lan");
  await manager.deleteTap(await tapOf(11));
  ip("link", "del", "br-lan");
});

test("links without our mark, or with another installation's, are foreign", async () => {
  ip("link", "add", "theirs0", "type", "veth", "peer", "name", "theirs1");
  ip("link", "set", "theirs0", "alias", "volant:99999999:7");
  const view = await manager.observe();
  for (const name of ["theirs0", "theirs1", "vbr0", "lo"]) assert.ok(view.foreignNames.has(name), name);
  assert.equal(view.taps.length, 1);
});

test("a permanent neighbour entry is made, replaced, seen and removed; removing it twice is no error", async () => {
  await manager.setNeighbour({ address: 0x0a090002, mac: "02:ab:cd:00:00:07" });
  await manager.setNeighbour({ address: 0x0a090002, mac: "02:ab:cd:00:00:08" });
  const [entry] = ipJson("neigh", "show", "dev", "vbr0");
  assert.deepEqual(
    [entry?.["dst"], entry?.["lladdr"], entry?.["state"]],
    ["10.9.0.2", "02:ab:cd:00:00:08", ["PERMANENT"]],
  );
  assert.deepEqual((await manager.observe()).neighbours, [{ address: 0x0a090002, mac: "02:ab:cd:00:00:08" }]);
  await manager.deleteNeighbour(0x0a090002);
  await manager.deleteNeighbour(0x0a090002);
  assert.deepEqual((await manager.observe()).neighbours, []);
});

test("a tap is deleted by what it is: one that has its name since is left alone", async () => {
  const tap = await tapOf(7);
  await manager.deleteTap(tap);
  assert.ok(!exists("vttap-web"));
  await manager.deleteTap(tap);
  await manager.createTap({ vmId: 9, name: "vttap-web", uid: UID });
  await manager.deleteTap(tap);
  assert.equal((await tapOf(9)).name, "vttap-web");
  await manager.deleteTap(await tapOf(9));
});

test("many taps are deleted at once, all of them and nothing else", async () => {
  const ids = Array.from({ length: 40 }, (_, index) => 100 + index);
  for (const vmId of ids) await manager.createTap({ vmId, name: `vttap-${vmId}`, uid: UID });
  const { taps } = await manager.observe();
  const spared = taps.find(({ vmId }) => vmId === 120);
  await Promise.all(taps.filter((tap) => tap !== spared).map((tap) => manager.deleteTap(tap)));
  const after = await manager.observe();
  assert.deepEqual(after.taps, [spared]);
  assert.ok(after.foreignNames.has("theirs0"));
});

test("a tap that is being made is taken for nobody else's, though it does not bear our mark yet", async () => {
  for (let round = 0; round < 20; round += 1) {
    let isMade = false;
    const making = manager.createTap({ vmId: 70, name: "vttap-made", uid: UID }).finally(() => (isMade = true));
    while (!isMade) await manager.checkReady("vttap-made");
    await making;
    await manager.deleteTap(await tapOf(70));
  }
});

test("what others do to the bridge and to a tap is told", async () => {
  const controller = new AbortController();
  const seen: (number | "all")[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const watching = manager.watch((vmId) => {
    seen.push(vmId);
    if (seen.includes(120) && seen.includes("all")) resolve();
  }, controller.signal);
  ip("link", "delete", "vttap-120");
  ip("link", "set", "vbr0", "down");
  await promise;
  controller.abort();
  await watching;
});

test("a MAC that a link of this host has is found by it, and one that none has is not", async () => {
  const mac = "02:00:00:00:00:76";
  ip("link", "set", "vbr0", "address", mac);
  assert.equal(await manager.linkWithMac(mac), "vbr0");
  assert.equal(await manager.linkWithMac("02:00:00:00:00:77"), undefined);
});

test("a missing bridge and a name that is not ours are said before anything is made", async () => {
  await assert.rejects(manager.checkReady("theirs0"), { code: "exists", message: /theirs0/ });
  await manager.checkReady("vttap-new");
  ip("link", "delete", "vbr0");
  await assert.rejects(manager.checkReady("vttap-new"), { code: "not_ready", hint: "run: volar setup" });
  assert.deepEqual((await manager.observe()).network, {
    managed: true,
    bridge: "missing",
    bridgeName: "vbr0",
    addressed: false,
  });
  ip("link", "add", "vbr0", "type", "ifb");
  await assert.rejects(manager.checkReady("vttap-new"), { code: "not_ready", message: /not a bridge/ });
});
