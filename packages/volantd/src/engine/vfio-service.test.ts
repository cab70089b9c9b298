/** PCI passthrough on a replica of sysfs. No device of a real host was ever handed on by it. */
import assert from "node:assert/strict";
import test, { after } from "node:test";
import { SysfsReplica } from "../testing/sysfs-replica.ts";
import { VfioService } from "./vfio-service.ts";

const replica = new SysfsReplica({
  "0000:00:01.0": { id: "8086:1901", class: "060400", driver: "pcieport", group: 1 },
  "0000:01:00.0": { id: "10de:1eb8", class: "030200", driver: "nouveau", group: 1 },
  "0000:01:00.1": { id: "10de:10f8", class: "040300", driver: "snd_hda_intel", group: 1 },
  "0000:02:00.0": { id: "8086:1572", class: "020000", driver: "i40e", group: 2, link: "up" },
  "0000:03:00.0": { id: "8086:1572", class: "020000", driver: "i40e", group: 3, link: "down" },
  "0000:04:00.0": { id: "144d:a808", class: "010802", driver: "nvme", group: 4 },
  "0000:05:00.0": { id: "1af4:1000", class: "020000" },
  "0000:06:00.0": { id: "1234:0001", class: "120000", group: 6 },
});
after(() => replica.remove());
const vfio = new VfioService(replica.sysfs);
const drivers = async (...addresses: string[]) =>
  Promise.all(addresses.map(async (address) => (await vfio.info(address)).driver));

test("a device is shown as sysfs has it, by its short address, too", async () => {
  assert.deepEqual(await vfio.info("03:00.0"), {
    address: "0000:03:00.0",
    vendor: "8086",
    device: "1572",
    class: "020000",
    driver: "i40e",
    iommu_group: 3,
    numa_node: -1,
    links: ["eth0"],
  });
  assert.equal((await vfio.info("0000:05:00.0")).iommu_group, undefined);
  await assert.rejects(vfio.info("0f:00.0"), { code: "not_found" });
});

test("what the host uses, can't be told apart or is not allowed is judged with a reason", async () => {
  const reasonFor = async (addresses: string[], allowlist: string[] = []) =>
    (await vfio.validate(addresses, allowlist)).devices.map(({ reason }) => reason ?? "");
  assert.match((await reasonFor(["00:01.0"])).join(), /is a bridge/);
  assert.match((await reasonFor(["02:00.0"])).join(), /network link eth0, which is up/);
  assert.match((await reasonFor(["04:00.0"])).join(), /storage that the host uses/);
  assert.match((await reasonFor(["05:00.0"])).join(), /in no IOMMU group/);
  assert.match((await reasonFor(["0f:00.0"])).join(), /no PCI device 0000:0f:00.0/);
  assert.match((await reasonFor(["01:00.0"])).join(), /shares IOMMU group 1 with 0000:01:00.1/);
  assert.deepEqual(await reasonFor(["01:00.0", "01:00.1"]), ["", ""]);
  const one = ["03:00.0"];
  for (const pattern of ["0000:03:00.0", "03:00.0", "8086:1572", "8086:*", "0000:03:*", "*:00.0", "*"]) {
    assert.deepEqual(await reasonFor(one, [pattern]), [""], pattern);
  }
  for (const pattern of ["8086", "0000:04:*", "8086:15721572*", "*x*"]) {
    assert.match((await reasonFor(one, [pattern])).join(), /not on the allowlist/, pattern);
  }
  assert.equal((await vfio.validate(one)).valid, true);
  assert.deepEqual(replica.writes, [], "judging changes nothing");
});

test("devices go to vfio-pci and back to the host's drivers, and their groups say what is where", async () => {
  const pair = ["01:00.0", "01:00.1"];
  const bound = await vfio.bind(pair);
  assert.deepEqual(
    bound.devices.map(({ driver }) => driver),
    ["vfio-pci", "vfio-pci"],
  );
  assert.deepEqual(replica.writes.slice(0, 3), [
    "bus/pci/devices/0000:01:00.0/driver_override vfio-pci",
    "bus/pci/drivers/nouveau/unbind 0000:01:00.0",
    "bus/pci/drivers_probe 0000:01:00.0",
  ]);
  const [group] = (await vfio.groups(pair)).groups;
  assert.deepEqual([group?.id, group?.path, group?.devices.length], [1, "/dev/vfio/1", 3]);
  assert.deepEqual(await vfio.paths(pair), { paths: ["/dev/vfio/1"] });
  const before = replica.writes.length;
  await vfio.bind(pair);
  assert.equal(replica.writes.length, before, "what is done already is not done again");
  await vfio.unbind(pair);
  assert.deepEqual(await drivers(...pair), ["nouveau", "snd_hda_intel"]);
  await assert.rejects(vfio.paths(pair), { code: "wrong_state" });
});

test("all devices go, or none: what one was taken from has it again when another can't be had", async () => {
  await assert.rejects(vfio.bind(["03:00.0", "02:00.0"]), { code: "in_use" });
  assert.deepEqual(await drivers("03:00.0", "02:00.0"), ["i40e", "i40e"]);
  replica.stubborn.add("0000:06:00.0");
  await assert.rejects(vfio.bind(["03:00.0", "06:00.0"]), { code: "wrong_state", hint: /modprobe vfio-pci/ });
  assert.deepEqual(await drivers("03:00.0", "06:00.0"), ["i40e", ""]);
  replica.stubborn.clear();
  await vfio.bind(["06:00.0"]);
  assert.deepEqual(await drivers("06:00.0"), ["vfio-pci"]);
});
