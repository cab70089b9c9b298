import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import { bridgeAlias, bridgeMac, checkBridgeName, checkSettings } from "./settings.ts";
import { setupRequest } from "../testing/setup-request.ts";

function message(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof VolantError);
    assert.equal(error.code, "invalid");
    return error.message;
  }
  return assert.fail("it was accepted");
}

test("the defaults are accepted, and so is every prefix from /8 to /30", () => {
  assert.equal(checkSettings(setupRequest()).block.prefixLength, 24);
  for (let prefix = 8; prefix <= 30; prefix += 1) {
    checkSettings(setupRequest({ subnet: `10.0.0.0/${prefix}`, hostIp: "10.0.0.1" }));
  }
});

test("a host address must be a usable one inside the subnet", () => {
  const refusal = (hostIp: string): string => message(() => checkSettings(setupRequest({ hostIp })));
  assert.match(refusal("192.168.128.1"), /192\.168\.128\.1 is not in the subnet 192\.168\.127\.0\/24/);
  assert.match(refusal("192.168.127.0"), /network address/);
  assert.match(refusal("192.168.127.255"), /broadcast address/);
  assert.match(refusal("192.168.127.1/24"), /not an IPv4 address/);
  assert.match(refusal(""), /not an IPv4 address/);
  assert.match(refusal("::1"), /not an IPv4 address/);
});

test("a subnet must be a block of hosts, written as one", () => {
  const refusal = (subnet: string): string => message(() => checkSettings(setupRequest({ subnet })));
  assert.match(refusal("192.168.127.0"), /not of the form/);
  assert.match(refusal("192.168.127.0/99"), /not of the form/);
  assert.match(refusal("192.168.127.0/31"), /between \/8 and \/30/);
  assert.match(refusal("0.0.0.0/0"), /between \/8 and \/30/);
  assert.match(refusal("192.168.127.9/24"), /host bits/);
  assert.match(refusal("127.0.0.0/8"), /not for hosts/);
  assert.match(refusal("230.0.0.0/8"), /not for hosts/);
  assert.match(refusal("fd00::/64"), /not of the form/);
});

test("a bridge's name must be one that Linux and iptables take literally", () => {
  for (const name of ["vbr0", "a", "abcdefghijklmno", "br-lan.5", "_x"]) assert.equal(checkBridgeName(name), name);
  const bad = [
    "",
    "abcdefghijklmnop",
    "a/b",
    "a b",
    "a\tb",
    "vb+",
    "-x",
    ".",
    "..",
    "a:b",
    "ü",
    "lo",
    "all",
    "default",
    "a%d",
  ];
  for (const name of bad) message(() => checkBridgeName(name));
  assert.match(
    message(() => checkBridgeName("abcdefghijklmnop")),
    /16 bytes long, and Linux allows 15/,
  );
});

test("paths must be absolute and fit a unit file", () => {
  message(() => checkSettings(setupRequest({ workDir: "work" })));
  message(() => checkSettings(setupRequest({ logDir: "/var/log\nExecStart=/bin/sh" })));
  message(() => checkSettings(setupRequest({ serviceFile: "/etc/passwd" })));
  message(() => checkSettings(setupRequest({ volantdProgram: "volantd" })));
  message(() => checkSettings(setupRequest({ volarProgram: "/opt/it's/volar" })));
  checkSettings(setupRequest({ serviceFile: "", volantdProgram: "" }));
});

test("the bridge's MAC and mark are the same for ever for the same settings", () => {
  const { bridge, subnet } = setupRequest();
  assert.equal(bridgeMac({ bridge, subnet }), "06:41:6d:44:dc:f4");
  assert.notEqual(bridgeMac({ bridge, subnet: "10.0.0.0/8" }), bridgeMac({ bridge, subnet }));
  assert.notEqual(bridgeMac({ bridge: "vbr1", subnet }), bridgeMac({ bridge, subnet }));
  assert.equal(bridgeAlias({ workDir: "/var/lib/volant" }), "volant:bridge:fb709392");
});
