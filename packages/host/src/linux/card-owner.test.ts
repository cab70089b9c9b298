import assert from "node:assert/strict";
import test from "node:test";
import { isUnmanagedByNetworkManager } from "../doctor/network-managers.ts";
import { isConfiguredByIfupdown } from "./card-owner.ts";
import { eui64 } from "./stations.ts";

test("ifupdown configures a card by a stanza of any method but manual", () => {
  const files = (...lines: string[]) => ["# none\n", lines.join("\n")];
  assert.equal(isConfiguredByIfupdown(files("auto eth0", "iface eth0 inet dhcp"), "eth0"), true);
  assert.equal(isConfiguredByIfupdown(files("  iface eth0 inet static", "  address 10.0.0.1/24"), "eth0"), true);
  assert.equal(isConfiguredByIfupdown(files("iface eth0 inet manual"), "eth0"), false);
  assert.equal(isConfiguredByIfupdown(files("iface eth01 inet dhcp", "#iface eth0 inet dhcp"), "eth0"), false);
});

test("NetworkManager leaves a card alone that its configuration names, or all that are Ethernet", () => {
  const config = (value: string) => [{ path: "nm.conf", text: `[keyfile]\nunmanaged-devices=${value}\n` }];
  assert.equal(isUnmanagedByNetworkManager(config("interface-name:eth*"), "eth0"), true);
  assert.equal(isUnmanagedByNetworkManager(config("type:ethernet"), "eth0"), true);
  assert.equal(isUnmanagedByNetworkManager(config("type:tun"), "eth0"), false);
  assert.equal(isUnmanagedByNetworkManager(config("interface-name:eth1"), "eth0"), false);
});

test("the kernel's link-local address is told from one that somebody gave a card", () => {
  assert.equal(eui64("52:54:00:77:00:05"), "fe80::5054:ff:fe77:5");
  assert.equal(eui64("02:00:12:34:56:78"), "fe80::12ff:fe34:5678");
});
