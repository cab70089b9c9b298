import assert from "node:assert/strict";
import test from "node:test";
import { findNetworkdSeizer, isUnmanagedByNetworkManager } from "./network-managers.ts";

const file = (text: string, path = "/etc/a") => ({ path, text });

test("NetworkManager leaves taps alone where unmanaged-devices names them, or all links", () => {
  const unmanaged = (...texts: string[]) => isUnmanagedByNetworkManager(texts.map((text) => file(text)));
  assert.equal(unmanaged("[main]\nplugins=keyfile\n"), false);
  assert.equal(unmanaged("[keyfile]\nunmanaged-devices=interface-name:docker0\n"), false);
  assert.equal(
    unmanaged("[main]\n", "[keyfile]\nunmanaged-devices+=interface-name:eth1;interface-name:vttap-*\n"),
    true,
  );
  assert.equal(unmanaged("[keyfile]\nunmanaged-devices=type:tun\n"), true);
  assert.equal(unmanaged("[keyfile]\nunmanaged-devices=*\n"), true);
  assert.equal(unmanaged("[other]\nunmanaged-devices=*\n"), false);
});

test("networkd takes a tap by the first file that matches it, unless that one says Unmanaged", () => {
  const seizer = (...texts: string[]) => findNetworkdSeizer(texts.map((text, index) => file(text, `/etc/${index}`)));
  assert.equal(seizer("[Match]\nName=en*\n[Network]\nDHCP=yes\n"), undefined);
  assert.equal(seizer("[Match]\nName=en*\n", "[Match]\nName=*\n[Network]\nDHCP=yes\n"), "/etc/1");
  assert.equal(seizer("[Match]\nName=vttap-* vbr0\n[Link]\nUnmanaged=yes\n", "[Match]\nName=*\n"), undefined);
  assert.equal(seizer("[Match]\nType=ether\n[Network]\nDHCP=yes\n"), "/etc/0");
  assert.equal(seizer("[Match]\nType=!loopback\n"), "/etc/0");
  assert.equal(seizer("[Match]\nName=*\nDriver=e1000\n"), undefined);
  assert.equal(seizer("[Network]\nDHCP=yes\n"), undefined);
});
