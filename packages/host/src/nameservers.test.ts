import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { findUpstreamNameservers, parseDnsmasqServers, parseResolvConf } from "./nameservers.ts";

async function find(files: Readonly<Record<string, string>>): Promise<string[]> {
  return await findUpstreamNameservers({
    readFile: async (path) => await Promise.resolve(files[path]),
    listFolder: async (path) =>
      await Promise.resolve(
        Object.keys(files).flatMap((file) => (file.startsWith(`${path}/`) ? [file.slice(path.length + 1)] : [])),
      ),
  });
}

test("resolv.conf is read as resolv.conf(5) says", () => {
  const text =
    "# nameserver 1.1.1.1\n; x\nsearch lan\nnameserver 192.0.2.1 # first\nnameserver\t192.0.2.2\n nameserver 9.9.9.9\nnameserver\n";
  assert.deepEqual(parseResolvConf(text), ["192.0.2.1", "192.0.2.2"]);
});

test("servers on the host's own file are taken: at most three, IPv4, each once", async () => {
  const servers = ["192.0.2.1", "2001:db8::1", "192.0.2.1", "127.0.0.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
  const text = servers.map((server) => `nameserver ${server}\n`).join("");
  assert.deepEqual(await find({ "/etc/resolv.conf": text }), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
});

test("a resolver on loopback is passed over for the servers that it asks", async () => {
  for (const loopback of ["127.0.0.53", "127.0.0.1", "::1", "127.0.1.1"]) {
    for (const path of [
      "/run/systemd/resolve/resolv.conf",
      "/run/NetworkManager/no-stub-resolv.conf",
      "/run/dnsmasq/resolv.conf",
      "/run/resolvconf/interface/eth0.dhclient",
    ]) {
      const files = { "/etc/resolv.conf": `nameserver ${loopback}\n`, [path]: "nameserver 198.51.100.7\n" };
      assert.deepEqual(await find(files), ["198.51.100.7"], `${loopback} ${path}`);
    }
    const dnsmasq = "server=/lan/10.0.0.1\nserver=198.51.100.8\nserver=198.51.100.9#53\nserver=198.51.100.10#5353\n";
    const files = { "/etc/resolv.conf": `nameserver ${loopback}\n`, "/etc/dnsmasq.d/upstream": dnsmasq };
    assert.deepEqual(await find(files), ["198.51.100.8", "198.51.100.9"]);
  }
});

test("a host that names no server, or none but itself, has none", async () => {
  assert.deepEqual(await find({}), []);
  assert.deepEqual(await find({ "/etc/resolv.conf": "nameserver 127.0.0.53\n" }), []);
  assert.deepEqual(await find({ "/etc/resolv.conf": "nameserver 0.0.0.0\nnameserver 224.0.0.251\n" }), []);
});

test("no text makes the parsers throw, and what they find are servers' words", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      for (const server of [...parseResolvConf(text), ...parseDnsmasqServers(text)]) assert.match(server, /^\S+$/);
    }),
  );
});
