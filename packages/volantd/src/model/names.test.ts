import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { guestCmdline } from "./cmdline.ts";
import { hostnameOf } from "./hostname.ts";
import { macAddress, vmIdOfMac } from "./mac.ts";
import { parseTapAlias, tapAlias } from "./mark.ts";
import { isLinkName, noopTapName, tapNames } from "./tap-name.ts";
import { parseSubnet } from "./address.ts";

const vmName = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/);
const installation = fc.stringMatching(/^[0-9a-f]{8}$/);

test("a host name is a label of RFC 1123, whatever the VM is called", () => {
  fc.assert(
    fc.property(fc.string(), (name) => assert.match(hostnameOf(name), /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/)),
  );
  assert.equal(hostnameOf("Web_Server.1"), "webserver1");
  assert.equal(hostnameOf("---"), "vm");
  assert.equal(hostnameOf(`${"a".repeat(62)}-b`), "a".repeat(62));
});

test("every name for a tap fits a link, starts with vttap- and is the same each time; the plain one comes first", () => {
  fc.assert(
    fc.property(vmName, (name) => {
      const names = tapNames(name);
      const again = tapNames(name);
      const first: string[] = [];
      for (let count = 0; count < 5; count += 1) {
        const { value } = names.next();
        assert.ok(isLinkName(value) && value.startsWith("vttap-"), value);
        assert.equal(again.next().value, value);
        first.push(value);
      }
      assert.equal(new Set(first).size, 5);
    }),
  );
  assert.equal(tapNames("web").next().value, "vttap-web");
  assert.equal(tapNames("Web-1").next().value, "vttap-web1");
  const long = [tapNames("production-web-1").next().value, tapNames("production-web-2").next().value];
  assert.notEqual(long[0], long[1]);
  assert.equal(long[0]?.length, 15);
});

test("names that collapse to one tap name differ in their hashed one", () => {
  const second = (name: string): string => {
    const names = tapNames(name);
    names.next();
    return names.next().value;
  };
  assert.notEqual(second("web-1"), second("web1"));
});

test("without a network of ours the tap's name keeps the VM's case", () => {
  assert.equal(noopTapName("Web-1"), "volar-tap-Web1");
});

test("a MAC is locally administered unicast, and its VM's id can be read from it by its own installation only", () => {
  fc.assert(
    fc.property(installation, installation, fc.integer({ min: 1, max: 0xffffff }), (ours, theirs, id) => {
      const mac = macAddress(ours, id);
      assert.match(mac, /^02(?::[0-9a-f]{2}){5}$/);
      assert.equal(vmIdOfMac(ours, mac), id);
      assert.equal(vmIdOfMac(ours, mac.toUpperCase()), id);
      if (theirs.slice(0, 4) !== ours.slice(0, 4)) assert.equal(vmIdOfMac(theirs, mac), undefined);
    }),
  );
  assert.throws(() => macAddress("abcdef01", 0x1000000), RangeError);
});

test("a tap's alias is read back; anything else carries no mark", () => {
  fc.assert(
    fc.property(installation, fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (id, vmId) =>
      assert.deepEqual(parseTapAlias(tapAlias({ installation: id, vmId })), { installation: id, vmId }),
    ),
  );
  for (const alias of [
    undefined,
    "",
    "volant:bridge:vbr0",
    "volant:ab:0",
    "volant:ab:1 ",
    "x volant:ab:1",
    "volant::1",
  ]) {
    assert.equal(parseTapAlias(alias), undefined);
  }
});

test("the command line of a bridged guest holds ip= as the kernel wants it, and the user's words at its end", () => {
  const pool = { subnet: parseSubnet("192.168.127.0/24"), gateway: 0xc0a87f01 };
  const input = { hostname: "web", runtime: "hello", plugin: "hello", extra: " a=1   b " };
  assert.equal(
    guestCmdline({ ...input, address: { guest: 0xc0a87f02, pool }, apiHost: "10.0.0.1", apiPort: "80" }),
    "ip=192.168.127.2::192.168.127.1:255.255.255.0:web:eth0:off volant.runtime=hello volant.plugin=hello volant.api_host=10.0.0.1 volant.api_port=80 a=1 b",
  );
  assert.equal(guestCmdline({ ...input, extra: "" }), "volant.runtime=hello volant.plugin=hello");
});
