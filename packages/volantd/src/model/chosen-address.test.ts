import assert from "node:assert/strict";
import test from "node:test";
import type { NetworkMode, VmConfig } from "@volant/contract";
import { parseSubnet } from "./address.ts";
import { checkChosenAddresses } from "./chosen-address.ts";

const pool = { subnet: parseSubnet("10.0.0.0/24"), gateway: 0x0a000001 };
const check = (given: VmConfig, mode: NetworkMode = "bridged"): void =>
  checkChosenAddresses('VM "web"', given, { mode, pool, installation: "abcdef01" });

const badAddresses: readonly [text: string, sentence: RegExp, mode?: NetworkMode][] = [
  ["10.0.0", /not an IPv4 address/],
  ["010.0.0.9", /not an IPv4 address/],
  ["fe80::1", /not an IPv4 address/],
  ["10.0.1.9", /10\.0\.1\.9 is outside 10\.0\.0\.0\/24/],
  ["10.0.0.0", /network address of 10\.0\.0\.0\/24/],
  ["10.0.0.255", /broadcast address of 10\.0\.0\.0\/24/],
  ["10.0.0.1", /this host's own/],
  ["10.0.0.9", /vsock, which has no Ethernet/, "vsock"],
  ["10.0.0.9", /DHCP server's to say/, "dhcp"],
];
for (const [text, sentence, mode] of badAddresses) {
  test(`the address ${text} in mode ${mode ?? "bridged"} is refused in one sentence`, () => {
    assert.throws(() => check({ ip_address: text }, mode), { code: "invalid", message: sentence });
  });
}

const badMacs: readonly [text: string, sentence: RegExp][] = [
  ["02:00:00:00:00", /six pairs/],
  ["02-00-00-00-00-07", /six pairs/],
  ["02:00:00:00:00:0g", /six pairs/],
  ["00:00:00:00:00:00", /all zeroes/],
  ["03:00:00:00:00:07", /multicast/],
  ["ff:ff:ff:ff:ff:ff", /multicast/],
  ["02:AB:CD:00:00:07", /gives to VMs by itself/],
];
for (const [text, sentence] of badMacs) {
  test(`the MAC ${text} is refused in one sentence`, () => {
    assert.throws(() => check({ mac_address: text }), { code: "invalid", message: sentence });
  });
}

test("an address of the subnet and the MAC of a station are taken, and none at all is none", () => {
  check({ ip_address: "10.0.0.2", mac_address: "02:00:00:00:00:07" });
  check({ ip_address: "10.0.0.254", mac_address: "AA:BB:CC:00:00:07" });
  check({ ip_address: "", mac_address: "" }, "vsock");
  check({ mac_address: "52:54:00:12:34:56" }, "dhcp");
});
