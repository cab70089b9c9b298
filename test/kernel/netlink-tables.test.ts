import assert from "node:assert/strict";
import test, { after } from "node:test";
import { type Address, Netlink, NetlinkError, type Route } from "@volant/netlink";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

const nl = await Netlink.open();
after(() => nl.close());
const v0 = await nl.links.create({ name: "v0", kind: "veth", peer: { name: "v1", up: true }, up: true });
const v1 = await nl.links.get("v1");
assert.ok(v1);
const names = new Map([
  [1, "lo"],
  [v0.index, "v0"],
  [v1.index, "v1"],
]);

const code = (expected: string) => (error: unknown) => error instanceof NetlinkError && error.code === expected;

const byText = (a: unknown, b: unknown) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
const sorted = (values: unknown[]) => (JSON.parse(JSON.stringify(values)) as unknown[]).sort(byText);

/** `ip` counts the seconds that are left, and so do we, a moment apart. */
const aboutTheSame = (seconds: unknown) => (seconds === undefined ? undefined : Math.round(Number(seconds) / 10));

function addressAsIpWould(address: Address): Record<string, unknown> {
  return {
    link: names.get(address.link),
    family: address.family,
    local: address.address,
    prefixlen: address.prefixLength,
    peer: address.peer,
    broadcast: address.broadcast,
    label: address.label,
    scope: address.scope,
    valid: aboutTheSame(address.validSeconds ?? 0xffff_ffff),
    preferred: aboutTheSame(address.preferredSeconds ?? 0xffff_ffff),
    noprefixroute: address.flags.includes("noPrefixRoute"),
  };
}

async function compareAddresses(): Promise<void> {
  const theirs = ipJson("address", "show").flatMap((link) =>
    (link["addr_info"] as Record<string, unknown>[]).map((info) => ({
      link: link["ifname"],
      family: info["family"],
      local: info["local"],
      prefixlen: info["prefixlen"],
      peer: info["address"],
      broadcast: info["broadcast"],
      label: info["label"],
      scope: info["scope"],
      valid: aboutTheSame(info["valid_life_time"]),
      preferred: aboutTheSame(info["preferred_life_time"]),
      noprefixroute: info["noprefixroute"] === true,
    })),
  );
  assert.deepEqual(sorted((await nl.addresses.list()).map(addressAsIpWould)), sorted(theirs));
}

test("addresses of both families are what ip shows, after each add, replace and delete", async () => {
  await nl.addresses.add({ link: "v0", address: "192.0.2.1", prefixLength: 24, broadcast: "auto" });
  await nl.addresses.add({ link: "v0", address: "192.0.2.2", prefixLength: 24, label: "v0:more" });
  await nl.addresses.add({ link: v1.index, address: "10.0.0.1", prefixLength: 32, peer: "10.0.0.2", scope: "link" });
  await nl.addresses.add({
    link: "v0",
    address: "2001:db8::1",
    prefixLength: 64,
    flags: ["noDuplicateDetection", "noPrefixRoute"],
  });
  await nl.addresses.add({
    link: "v0",
    address: "2001:db8::2",
    prefixLength: 64,
    validSeconds: 1005,
    preferredSeconds: 505,
  });
  await compareAddresses();
  await assert.rejects(nl.addresses.add({ link: "v0", address: "192.0.2.1", prefixLength: 24 }), code("EEXIST"));
  await nl.addresses.add({ link: "v0", address: "192.0.2.1", prefixLength: 24, validSeconds: 2005, replace: true });
  await compareAddresses();
  assert.deepEqual(
    (await nl.addresses.list({ link: "v1", family: "inet" })).map((one) => one.address),
    ["10.0.0.1"],
  );
  await nl.addresses.delete({ link: "v0", address: "192.0.2.2", prefixLength: 24 });
  await nl.addresses.delete({ link: "v0", address: "2001:db8::2", prefixLength: 64 });
  await compareAddresses();
  await assert.rejects(
    nl.addresses.delete({ link: "v0", address: "192.0.2.2", prefixLength: 24 }),
    code("EADDRNOTAVAIL"),
  );
});

test("an address that is none, or with a prefix too long, is refused in words", async () => {
  await assert.rejects(nl.addresses.add({ link: "v0", address: "192.0.2", prefixLength: 24 }), code("EINVAL"));
  await assert.rejects(nl.addresses.add({ link: "v0", address: "192.0.2.9", prefixLength: 33 }), code("EINVAL"));
  await assert.rejects(nl.addresses.add({ link: "v0", address: "fe80::1%v0", prefixLength: 64 }), code("EINVAL"));
  await assert.rejects(nl.addresses.add({ link: "nobody", address: "192.0.2.9", prefixLength: 24 }), code("ENODEV"));
});

function routeAsIpWould(route: Route): Record<string, unknown> {
  return {
    type: route.type,
    dst: route.destination.replace(/\/(32|128)$/, ""),
    gateway: route.gateway,
    dev: route.link === undefined ? undefined : names.get(route.link),
    prefsrc: route.preferredSource,
    metric: route.metric,
    protocol: route.protocol === "unspecified" ? undefined : route.protocol,
    scope: route.scope,
    hops: route.nextHops?.map((hop) => [names.get(hop.link), hop.gateway, hop.weight]),
  };
}

async function compareRoutes(
  table: number | "all",
  families: readonly ("inet" | "inet6")[] = ["inet", "inet6"],
): Promise<Route[]> {
  const routes: Route[] = [];
  for (const family of families) {
    const ours = await nl.routes.list({ table, family });
    const theirs = ipJson(family === "inet" ? "-4" : "-6", "route", "show", "table", String(table)).map((route) => {
      const via = route["via"] as { host: string } | undefined;
      const hops = route["nexthops"] as { dev: string; gateway?: string; weight: number }[] | undefined;
      return {
        type: route["type"],
        dst: route["dst"],
        gateway: route["gateway"] ?? via?.host,
        dev: route["dev"],
        prefsrc: route["prefsrc"],
        metric: route["metric"],
        protocol: route["protocol"],
        scope: route["scope"],
        hops: hops?.map((hop) => [hop.dev, hop.gateway, hop.weight]),
      };
    });
    assert.deepEqual(sorted(ours.map(routeAsIpWould)), sorted(theirs));
    routes.push(...ours);
  }
  return routes;
}

test("routes of both families are what ip shows: gateways, metrics, tables, blackholes, multipath", async () => {
  await nl.addresses.add({ link: "v0", address: "198.51.100.1", prefixLength: 24 });
  await nl.routes.add({ destination: "default", gateway: "198.51.100.254", link: "v0", metric: 7, protocol: "static" });
  await nl.routes.add({ destination: "203.0.113.0/24", gateway: "198.51.100.253", mtu: 1400 });
  await nl.routes.add({ destination: "203.0.114.7", link: "v1" });
  await nl.routes.add({ destination: "203.0.115.0/24", type: "blackhole" });
  await nl.routes.add({
    destination: "203.0.116.0/24",
    nextHops: [
      { link: "v0", gateway: "198.51.100.2", weight: 3 },
      { link: "v0", gateway: "198.51.100.3" },
    ],
  });
  await nl.routes.add({ destination: "203.0.117.0/24", gateway: "198.51.100.2", table: 1000 });
  await nl.routes.add({ destination: "default", family: "inet6", link: "v0", metric: 9 });
  await nl.routes.add({ destination: "2001:db8:1::/48", gateway: "2001:db8::9", link: "v0" });
  const main = await compareRoutes(254);
  assert.equal(main.find((route) => route.destination === "203.0.113.0/24")?.mtu, 1400);
  await compareRoutes(1000, ["inet"]);
  await compareRoutes("all");
  await assert.rejects(nl.routes.add({ destination: "203.0.115.0/24", type: "blackhole" }), code("EEXIST"));
  await nl.routes.add({ destination: "203.0.113.0/24", gateway: "198.51.100.252", replace: true });
  await nl.routes.delete({ destination: "default", metric: 7 });
  await nl.routes.delete({ destination: "203.0.117.0/24", table: 1000 });
  await compareRoutes("all");
  await assert.rejects(nl.routes.delete({ destination: "203.0.118.0/24" }), code("ESRCH"));
  await assert.rejects(nl.routes.add({ destination: "203.0.118.0/33", link: "v0" }), code("EINVAL"));
  await assert.rejects(nl.routes.add({ destination: "203.0.118.0/24", gateway: "192.0.3.1" }), code("ENETUNREACH"));
});

async function compareNeighbours(): Promise<void> {
  const theirs = ipJson("neigh", "show", "nud", "all").map((entry) => ({
    dst: entry["dst"],
    dev: entry["dev"],
    lladdr: entry["lladdr"],
    state: entry["state"],
    router: entry["router"] === null,
  }));
  const ours = (await nl.neighbours.list()).map((entry) => ({
    dst: entry.address,
    dev: names.get(entry.link),
    // ip leaves out the empty address of lo's entries; so does it for entries that have none.
    lladdr: entry.mac,
    state: [entry.state.toUpperCase()],
    router: entry.flags.includes("router"),
  }));
  assert.deepEqual(sorted(ours), sorted(theirs));
}

test("neighbours are what ip shows: permanent, changed, deleted, of both families", async () => {
  await nl.neighbours.set({ link: "v0", address: "192.0.2.77", mac: "02:00:00:00:00:07", permanent: true });
  await nl.neighbours.set({ link: "v0", address: "2001:db8::77", mac: "02:00:00:00:00:08", flags: ["router"] });
  await nl.neighbours.set({ link: "v1", address: "10.0.0.77", mac: "02:00:00:00:00:09", permanent: false });
  await compareNeighbours();
  await nl.neighbours.set({ link: "v0", address: "192.0.2.77", mac: "02:00:00:00:00:0a", permanent: true });
  await compareNeighbours();
  const [changed] = await nl.neighbours.list({ link: "v0", family: "inet" });
  assert.deepEqual([changed?.mac, changed?.state], ["02:00:00:00:00:0a", "permanent"]);
  await nl.neighbours.delete({ link: "v0", address: "192.0.2.77" });
  assert.equal(
    (await nl.neighbours.list({ link: "v0" })).some(
      (entry) => entry.address === "192.0.2.77" && entry.state === "permanent",
    ),
    false,
  );
  await assert.rejects(nl.neighbours.delete({ link: "v0", address: "192.0.2.78" }), code("ENOENT"));
  await assert.rejects(
    nl.neighbours.set({ link: "v0", address: "192.0.2.78", mac: "03:00:00:00:00:01" }),
    code("EINVAL"),
  );
});

test("a person without CAP_NET_ADMIN may read, and is told what a change needs", async () => {
  const { spawnSync } = await import("node:child_process");
  const program = `
    const { Netlink } = await import(${JSON.stringify(import.meta.resolve("@volant/netlink"))});
    const nl = await Netlink.open();
    const links = await nl.links.list();
    const error = await nl.links.create({ name: "x", kind: "bridge" }).catch((error) => error);
    console.log(JSON.stringify([links.length, error.code, error.message]));
    await nl.close();`;
  const drop = [
    "--bounding-set",
    "-net_admin",
    "--inh-caps",
    "-net_admin",
    "--",
    process.execPath,
    "--input-type=module",
    "-e",
    program,
  ];
  const { stdout, stderr } = spawnSync("setpriv", drop, { encoding: "utf8" });
  assert.notEqual(stdout, "", stderr);
  const [count, errorCode, message] = JSON.parse(stdout) as [number, string, string];
  assert.deepEqual([count, errorCode], [3, "EPERM"]);
  assert.match(message, /CAP_NET_ADMIN/);
  assert.equal(ip("link", "show").includes(" x:"), false);
});
