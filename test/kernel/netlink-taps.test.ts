import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readdirSync, readFileSync } from "node:fs";
import test, { after, afterEach } from "node:test";
import { childEnd, closeTap, Netlink, NetlinkError, openTap, startChild } from "@volant/netlink";
import { enterOwnNamespace, ipJson } from "../namespace.ts";
import { within } from "../patience.ts";

enterOwnNamespace(import.meta.url);

const nl = await Netlink.open();
after(() => nl.close());
await nl.links.create({ name: "br0", kind: "bridge", up: true, mac: "02:00:00:00:00:01" });
afterEach(async () => {
  await nl.links.deleteMany(await nl.links.list({ kind: "tun" }));
});

const code = (expected: string) => (error: unknown) => error instanceof NetlinkError && error.code === expected;
const openFiles = () => readdirSync("/proc/self/fd").length;

interface IpTap {
  linkinfo: { info_kind: string; info_data: Record<string, unknown> };
  [key: string]: unknown;
}

test("a tap is what ip shows: tap, vnet_hdr, persistent, owned, in its bridge and group, aliased, up", async () => {
  const index = await nl.taps.create({
    name: "vttap-web",
    owner: 4242,
    group: 4243,
    attach: { master: "br0", alias: "volant:abc:7", linkGroup: 12, mtu: 1400, mac: "02:00:00:00:00:77" },
  });
  const [shown] = ipJson("link", "show", "vttap-web") as IpTap[];
  assert.ok(shown);
  const { ifindex, ifalias, master, group, mtu, address, flags, linkinfo } = shown;
  assert.deepEqual(
    { ifindex, ifalias, master, group, mtu, address, kind: linkinfo.info_kind },
    {
      ifindex: index,
      ifalias: "volant:abc:7",
      master: "br0",
      group: "12",
      mtu: 1400,
      address: "02:00:00:00:00:77",
      kind: "tun",
    },
  );
  assert.ok((flags as string[]).includes("UP"));
  const { type, pi, vnet_hdr, persist, multi_queue, user, group: tapGroup } = linkinfo.info_data;
  assert.deepEqual(
    { type, pi, vnet_hdr, persist, multi_queue, user: String(user), tapGroup: String(tapGroup) },
    { type: "tap", pi: false, vnet_hdr: true, persist: true, multi_queue: false, user: "4242", tapGroup: "4243" },
  );
  const tap = (await nl.links.get(index))?.tap;
  assert.deepEqual(tap, {
    owner: 4242,
    group: 4243,
    packetInfo: false,
    vnetHdr: true,
    persist: true,
    multiQueue: false,
  });
});

test("a fresh tap has no carrier and no IPv6 address until somebody opens it, and then has a carrier", async () => {
  const index = await nl.taps.create({ name: "t0", attach: { master: "br0", addressGeneration: "none" } });
  assert.equal((await nl.links.get(index))?.carrier, false);
  assert.deepEqual(await nl.addresses.list({ link: index }), []);
  const fd = await openTap("t0");
  assert.equal((await nl.links.get(index))?.carrier, true);
  await closeTap(fd);
  assert.equal((await nl.links.get(index))?.carrier, false);
  assert.deepEqual(await nl.addresses.list({ link: index }), []);
});

test("a name that any link has is EEXIST, and the link stays as it was", async () => {
  await nl.taps.create({ name: "t0", attach: { alias: "first" } });
  const before = await nl.links.get("t0");
  await assert.rejects(nl.taps.create({ name: "t0", attach: { alias: "second" } }), code("EEXIST"));
  await assert.rejects(nl.taps.create({ name: "br0" }), code("EEXIST"));
  assert.equal((await nl.links.get("t0"))?.alias, before?.alias);
});

test("a tap whose attach fails is gone again, and so is its descriptor", async () => {
  const files = openFiles();
  await nl.links.create({ name: "v0", kind: "veth", peer: { name: "v1" } });
  for (const master of ["nobody", "v0", 987_654]) {
    await assert.rejects(nl.taps.create({ name: "t0", attach: { master, alias: "x" } }), NetlinkError);
    assert.equal(await nl.links.get("t0"), undefined);
  }
  await nl.links.delete("v0");
  assert.equal(openFiles(), files);
});

test("two hundred taps made at once are all there, each with its own alias", async () => {
  const names = Array.from({ length: 200 }, (_none, index) => `t${index}`);
  await Promise.all(
    names.map((name) => nl.taps.create({ name, attach: { master: "br0", alias: `volant:x:${name}` } })),
  );
  const taps = await nl.links.list({ kind: "tun", master: "br0" });
  assert.deepEqual(taps.map((tap) => tap.alias).sort(), names.map((name) => `volant:x:${name}`).sort());
  assert.ok(taps.every((tap) => tap.tap?.persist === true));
});

test("an opened tap is handed to a child process by its number, and stays when both let go", async () => {
  await nl.taps.create({ name: "t0", attach: { master: "br0" } });
  const fd = await openTap("t0");
  const child = spawn("sh", ["-c", "readlink /proc/self/fd/3; cat /proc/self/fdinfo/3"], {
    stdio: ["ignore", "pipe", "inherit", fd],
  });
  child.stdout?.setEncoding("utf8");
  let output = "";
  child.stdout?.on("data", (text: string) => (output += text));
  await within(once(child, "close"), "what a child sees of its tap", () => output);
  assert.match(output, /^\/dev\/net\/tun\n/);
  assert.match(output, /^iff:\s+t0$/m);
  assert.match(
    readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"),
    /^flags:\s+0?2\d{6}$/m,
    "close-on-exec for any other child",
  );
  await assert.rejects(openTap("t0"), code("EBUSY"));
  await closeTap(fd);
  assert.ok(await nl.links.get("t0"));
});

test("opening a tap that does not exist is ENODEV and makes none; a link that is no tap is refused", async () => {
  const files = openFiles();
  await assert.rejects(openTap("nobody"), code("ENODEV"));
  await assert.rejects(openTap("br0"), NetlinkError);
  await assert.rejects(openTap("a/b"), code("EINVAL"));
  assert.equal(await nl.links.get("nobody"), undefined);
  assert.equal(openFiles(), files);
});

test("arguments that can't be right are refused before a tap is made", async () => {
  for (const name of ["", "tap%d", "sixteen-letters-", "a b"])
    await assert.rejects(nl.taps.create({ name }), code("EINVAL"));
  await assert.rejects(nl.taps.create({ name: "t0", owner: -1 }), code("EINVAL"));
  await assert.rejects(nl.taps.create({ name: "t0", attach: { mtu: 10 } }), code("EINVAL"));
  assert.deepEqual(await nl.links.list({ kind: "tun" }), []);
});

test("a tap that was just made can be opened while children are being started, since none of them has a copy of its descriptor", async () => {
  const nothing = openSync("/dev/null", "r+");
  const start = { path: "/bin/true", args: ["true"], env: {}, files: [nothing, nothing, nothing] };
  for (let round = 0; round < 20; round += 1) {
    const name = `beside${round}`;
    const made = nl.taps.create({ name });
    const children = Array.from({ length: 8 }, () => startChild(start));
    await made;
    await closeTap(await openTap(name));
    for (const pid of await Promise.all(children)) await childEnd(pid);
  }
  closeSync(nothing);
});
