import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import test, { after, afterEach } from "node:test";
import { type Link, Netlink, NetlinkError } from "@volant/netlink";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

const nl = await Netlink.open();
after(() => nl.close());
afterEach(() => {
  for (const link of ipJson("link", "show")) {
    // A veth takes its peer with it, so some are gone when their turn comes.
    if (link["ifname"] !== "lo") spawnSync("ip", ["link", "delete", String(link["ifname"])], { stdio: "ignore" });
  }
});

const code = (expected: string) => (error: unknown) => error instanceof NetlinkError && error.code === expected;

type IpLink = Record<string, unknown> & {
  linkinfo?: {
    info_kind?: string;
    info_data?: Record<string, unknown>;
    info_slave_kind?: string;
    info_slave_data?: Record<string, unknown>;
  };
  stats64?: { rx: Record<string, number>; tx: Record<string, number> };
};

/** What we say about a link, in the words of `ip -json -details -statistics link show`. */
function asIpWould(link: Link, names: ReadonlyMap<number, string>): Record<string, unknown> {
  const { flags } = link;
  const words = {
    "NO-CARRIER": flags.up && !flags.running,
    LOOPBACK: flags.loopback,
    BROADCAST: flags.broadcast,
    MULTICAST: flags.multicast,
    NOARP: flags.noArp,
    PROMISC: flags.promiscuous,
    UP: flags.up,
    LOWER_UP: flags.lowerUp,
  };
  return {
    ifindex: link.index,
    ifname: link.name,
    mtu: link.mtu,
    operstate: link.operState.toUpperCase(),
    flags: Object.entries(words)
      .flatMap(([word, set]) => (set ? [word] : []))
      .sort(),
    address: link.mac,
    broadcast: link.broadcast,
    ifalias: link.alias,
    master: link.master === undefined ? undefined : names.get(link.master),
    group: link.group === 0 ? "default" : String(link.group),
    qdisc: link.qdisc,
    txqlen: link.txQueueLength,
    promiscuity: link.promiscuity,
    kind: link.kind,
    inet6_addr_gen_mode: link.addressGeneration,
    rx: link.stats64?.rxBytes,
    tx: link.stats64?.txPackets,
  };
}

function asIpDoes(link: IpLink): Record<string, unknown> {
  return {
    ifindex: link["ifindex"],
    ifname: link["ifname"],
    mtu: link["mtu"],
    operstate: link["operstate"],
    // M-DOWN is ip's own conclusion from the peer's state, not a flag.
    flags: (link["flags"] as string[]).filter((flag) => flag !== "M-DOWN").sort(),
    address: link["address"],
    broadcast: link["broadcast"],
    ifalias: link["ifalias"],
    master: link["master"],
    group: link["group"],
    qdisc: link["qdisc"],
    txqlen: link["txqlen"],
    promiscuity: link["promiscuity"],
    kind: link.linkinfo?.info_kind,
    inet6_addr_gen_mode: link["inet6_addr_gen_mode"],
    rx: link.stats64?.rx["bytes"],
    tx: link.stats64?.tx["packets"],
  };
}

/** Reads both, again when a counter moved in between, and compares. Returns ours by name. */
async function compareWithIp(): Promise<Map<string, Link>> {
  for (let attempt = 1; ; attempt++) {
    const links = await nl.links.list();
    const theirs = ipJson("-statistics", "link", "show") as IpLink[];
    const names = new Map(links.map((link) => [link.index, link.name]));
    try {
      assert.deepEqual(
        links.map((link) => asIpWould(link, names)),
        theirs.map(asIpDoes),
      );
      return new Map(links.map((link) => [link.name, link]));
    } catch (error) {
      if (attempt === 5) throw error;
    }
  }
}

test("links of every kind that we make are what ip shows, field by field", async () => {
  const bridge = await nl.links.create({
    name: "br0",
    kind: "bridge",
    mac: "02:00:00:00:00:01",
    mtu: 1400,
    up: true,
    alias: "volant: ünïcode",
    group: 7,
    ageingTimeMs: 60_000,
    multicastSnooping: false,
    stp: false,
  });
  assert.equal(bridge.alias, "volant: ünïcode");
  await nl.links.create({
    name: "v0",
    kind: "veth",
    peer: { name: "v1", up: true, mac: "02:00:00:00:00:11" },
    master: "br0",
    up: true,
  });
  await nl.links.create({
    name: "x0",
    kind: "vxlan",
    vni: 42,
    remote: "192.0.2.1",
    port: 4789,
    underlay: "br0",
    ttl: 9,
  });
  await nl.links.create({ name: "i0", kind: "ifb" });
  await nl.taps.create({ name: "t0", owner: 1000, attach: { master: bridge.index, addressGeneration: "none" } });
  const links = await compareWithIp();

  const shown = new Map((ipJson("link", "show") as IpLink[]).map((link) => [link["ifname"], link.linkinfo]));
  const br = shown.get("br0")?.info_data;
  assert.equal(br?.["ageing_time"], 6000);
  assert.equal(br?.["mcast_snooping"], 0);
  assert.equal(br?.["priority"], links.get("br0")?.bridge?.priority);
  assert.equal(links.get("br0")?.bridge?.ageingTimeMs, 60_000);
  const vx = shown.get("x0")?.info_data;
  assert.deepEqual([vx?.["id"], vx?.["remote"], vx?.["port"], vx?.["ttl"]], [42, "192.0.2.1", 4789, 9]);
  assert.equal(links.get("x0")?.vxlan?.remote, "192.0.2.1");
  assert.equal(links.get("v0")?.parent, links.get("v1")?.index);
  const port = shown.get("v0")?.info_slave_data;
  assert.equal(port?.["state"], links.get("v0")?.bridgePort?.state);
  assert.equal(port?.["learning"], links.get("v0")?.bridgePort?.learning);
});

test("a list can be narrowed to a bridge's ports and to a kind, and can leave counters out", async () => {
  await nl.links.create({ name: "br0", kind: "bridge" });
  await nl.links.create({ name: "v0", kind: "veth", peer: { name: "v1" }, master: "br0" });
  const names = (links: Link[]) => links.map((link) => link.name).sort();
  assert.deepEqual(names(await nl.links.list({ master: "br0" })), ["v0"]);
  assert.deepEqual(names(await nl.links.list({ kind: "veth" })), ["v0", "v1"]);
  assert.ok((await nl.links.list({ stats: false })).every((link) => link.stats64 === undefined));
  assert.deepEqual((await nl.links.get("br0"))?.index, (await nl.links.list({ kind: "bridge" }))[0]?.index);
  assert.equal(await nl.links.get("nobody"), undefined);
  assert.equal(await nl.links.get(987_654), undefined);
});

test("every change of a link shows in ip: name, mac, mtu, alias, group, master, up, port and bridge settings", async () => {
  await nl.links.create({ name: "br0", kind: "bridge", up: true });
  await nl.links.create({ name: "v0", kind: "veth", peer: { name: "v1" } });
  await nl.links.set("v0", {
    name: "w0",
    mac: "02:00:00:00:00:99",
    mtu: 1300,
    alias: "one",
    group: 5,
    addressGeneration: "none",
  });
  await nl.links.set("w0", { master: "br0", up: true });
  await nl.links.setBridgePort("w0", { isolated: true, learning: false });
  await nl.links.setBridge("br0", { ageingTimeMs: 10_000 });
  let link = (await compareWithIp()).get("w0");
  assert.deepEqual(
    [link?.mac, link?.mtu, link?.alias, link?.group, link?.flags.up],
    ["02:00:00:00:00:99", 1300, "one", 5, true],
  );
  assert.deepEqual([link?.bridgePort?.isolated, link?.bridgePort?.learning], [true, false]);
  assert.equal((await nl.links.get("br0"))?.bridge?.ageingTimeMs, 10_000);
  await nl.links.set("w0", { master: null, up: false, alias: "" });
  link = (await compareWithIp()).get("w0");
  assert.deepEqual([link?.master, link?.flags.up, link?.alias], [undefined, false, undefined]);
});

test("counters of all links are those of ip -statistics", async () => {
  const counters = await nl.links.counters();
  const lo = (ipJson("-statistics", "link", "show", "lo") as IpLink[])[0];
  assert.equal(counters.get(1)?.rxPackets, lo?.stats64?.rx["packets"]);
});

test("a group delete takes every link of the group, foreign ones too, and no other", async () => {
  for (const name of ["a0", "b0", "c0"]) await nl.links.create({ name, kind: "ifb", group: 77 });
  await nl.links.create({ name: "other", kind: "ifb", group: 78 });
  ip("link", "add", "foreign", "group", "77", "type", "ifb");
  await nl.links.deleteGroup(77);
  assert.deepEqual(
    ipJson("link", "show").map((link) => link["ifname"]),
    ["lo", "other"],
  );
  await assert.rejects(nl.links.deleteGroup(77), code("ENODEV"));
});

test("a group delete refuses group 0, and a group with lo in it, and then deletes nothing", async () => {
  await nl.links.create({ name: "a0", kind: "ifb", group: 77 });
  await assert.rejects(nl.links.deleteGroup(0), code("EINVAL"));
  await nl.links.set("lo", { group: 77 });
  await assert.rejects(nl.links.deleteGroup(77), code("EOPNOTSUPP"));
  await nl.links.set("lo", { group: 0 });
  assert.ok(await nl.links.get("a0"));
});

test("deleteMany deletes the links that it is given, and leaves one alone whose index now has another name", async () => {
  const links: Link[] = [];
  for (const name of ["a0", "b0", "c0", "d0", "keep"])
    links.push(await nl.links.create({ name, kind: "ifb", group: 3 }));
  ip("link", "set", "d0", "name", "renamed");
  ip("link", "delete", "c0");
  const wanted = links.filter((link) => link.name !== "keep");
  assert.equal(await nl.links.deleteMany(wanted), 2);
  assert.deepEqual(
    ipJson("link", "show").map((link) => link["ifname"]),
    ["lo", "renamed", "keep"],
  );
  assert.equal((await nl.links.get("renamed"))?.group, 3);
});

test("errors carry the errno's name, the operation, the object and the kernel's own words", async () => {
  await nl.links.create({ name: "br0", kind: "bridge" });
  await nl.links.create({ name: "br1", kind: "bridge" });
  await assert.rejects(nl.links.create({ name: "br0", kind: "bridge" }), (error: unknown) => {
    assert.ok(error instanceof NetlinkError);
    assert.deepEqual([error.code, error.errno, error.operation, error.object], ["EEXIST", 17, "create bridge", "br0"]);
    return true;
  });
  await assert.rejects(nl.links.set("br0", { master: "br1" }), (error: unknown) => {
    assert.ok(error instanceof NetlinkError);
    assert.equal(error.code, "ELOOP");
    assert.match(error.message, /^change link br0: .*bridge.*\(ELOOP\)$/i);
    return true;
  });
  await assert.rejects(nl.links.delete("nobody"), code("ENODEV"));
  await assert.rejects(nl.links.set("nobody", { up: true }), code("ENODEV"));
  await assert.rejects(nl.links.set("br0", { master: "nobody" }), code("ENODEV"));
});

test("arguments that can't be right are refused in words before the kernel is asked", async () => {
  const name = "br0";
  const bad: Parameters<typeof nl.links.create>[0][] = [
    { name: "", kind: "bridge" },
    { name: "sixteen-letters-", kind: "bridge" },
    { name: "a/b", kind: "bridge" },
    { name: "tap%d", kind: "bridge" },
    { name: "..", kind: "bridge" },
    { name, kind: "bridge", mac: "01:00:00:00:00:00" },
    { name, kind: "bridge", mac: "nonsense" },
    { name, kind: "bridge", mtu: -1 },
    { name, kind: "bridge", mtu: 1.5 },
    { name, kind: "bridge", alias: "x".repeat(256) },
    { name, kind: "vxlan", vni: 2 ** 24 },
    { name, kind: "vxlan", vni: 1, remote: "192.0.2.1", local: "2001:db8::1" },
  ];
  for (const options of bad) await assert.rejects(nl.links.create(options), code("EINVAL"), JSON.stringify(options));
  assert.deepEqual(
    ipJson("link", "show").map((link) => link["ifname"]),
    ["lo"],
  );
});

test("of changes made at once, one that fails keeps its error to itself", async () => {
  const names = Array.from({ length: 100 }, (_none, index) => `d${index % 50}`);
  const made = await Promise.allSettled(names.map((name) => nl.links.create({ name, kind: "ifb" })));
  const failures = made.flatMap((one, index) =>
    one.status === "rejected" ? [[index, (one.reason as NetlinkError).code]] : [],
  );
  assert.deepEqual(
    failures,
    Array.from({ length: 50 }, (_none, index) => [index + 50, "EEXIST"]),
  );
  const outOfRange = nl.links.setBridge("lo", { priority: 70_000 });
  await Promise.all([assert.rejects(outOfRange, code("EINVAL")), nl.links.set("d0", { alias: "fine" })]);
  assert.equal((await nl.links.get("d0"))?.alias, "fine");
});

test("deleting a link does not hold up other requests, nor the event loop", async () => {
  await nl.links.create({ name: "a0", kind: "ifb" });
  const order: string[] = [];
  await Promise.all([
    nl.links.delete("a0").then(() => order.push("delete")),
    nl.links.get("lo").then(() => order.push("get")),
    new Promise<void>((resolve) => setImmediate(resolve)).then(() => order.push("loop")),
  ]);
  assert.equal(order.at(-1), "delete");
});

test("a dump of more links than fit into one datagram is complete, while requests overlap", async () => {
  const names = Array.from({ length: 60 }, (_none, index) => `d${index}`);
  await Promise.all(names.map((name) => nl.links.create({ name, kind: "ifb", group: 9 })));
  const dumps = await Promise.all([nl.links.list(), nl.links.list({ kind: "ifb" }), nl.links.list({ stats: false })]);
  assert.deepEqual(
    dumps.map((links) => links.length),
    [61, 60, 61],
  );
  assert.equal(await nl.links.deleteMany(dumps[1] ?? []), 60);
});

test("a closed Netlink refuses requests, and close may be called twice", async () => {
  const other = await Netlink.open();
  await other.close();
  await other.close();
  await assert.rejects(other.links.list(), code("EBADF"));
});

test("a list of all links shows what has changed of one since the last list, and the others as they were", async () => {
  const all = () => nl.links.list({ stats: false });
  const { index } = await nl.links.create({ name: "br0", kind: "bridge", up: true });
  await nl.links.create({ name: "v0", kind: "veth", peer: { name: "v1" } });
  const find = async (name: string) => (await all()).find((link) => link.name === name);
  for (const change of [{ up: true }, { alias: "ours" }, { master: "br0" }, { group: 7 }, { mtu: 1400 }]) {
    await nl.links.set("v0", change);
    const { stats64: _, ...expected } = (await nl.links.get("v0")) ?? {};
    assert.deepEqual(await find("v0"), expected, JSON.stringify(change));
  }
  await nl.links.delete("v0");
  assert.equal(await find("v0"), undefined);
  assert.equal(nl.links.indexOf("br0"), index);
  assert.equal(nl.links.indexOf("v0"), undefined);
});
