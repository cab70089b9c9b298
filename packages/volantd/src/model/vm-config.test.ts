import assert from "node:assert/strict";
import test from "node:test";
import type { CreateVmRequest, Manifest, VmConfig } from "@volant/contract";
import { parseSubnet } from "./address.ts";
import { mergeConfig, needsStart, pinInitramfs, requestedConfig } from "./vm-config.ts";
import { resolveConfig, resolveVm, type VmSpec } from "./vm-spec.ts";

const managed = { bridge: "vbr0", pool: { subnet: parseSubnet("10.0.0.0/24"), gateway: 0x0a000001 } };
const manifest: Manifest = {
  name: "hello",
  version: "1",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { entrypoint: ["/bin/hello"] },
  initramfs: { url: "file:///x" },
};
const resolve = (config: VmConfig): VmSpec =>
  resolveConfig("web", config, { manifest: config.manifest ?? manifest, managed });

test("what a request gives beside its config is found again where a patch changes it", () => {
  const request: CreateVmRequest = {
    name: "web",
    plugin: "hello",
    cpu_cores: 2,
    kernel_cmdline: "quiet",
    api_port: "80",
    config: { resources: { cpu_cores: 1, memory_mb: 200 }, env: { A: "1" } },
  };
  const config = requestedConfig(request);
  assert.deepEqual(config, {
    plugin: "hello",
    kernel_cmdline: "quiet",
    resources: { cpu_cores: 2, memory_mb: 200 },
    api: { port: "80" },
    env: { A: "1" },
  });
  assert.deepEqual(resolveVm(request, manifest, managed), resolve(config));
  assert.deepEqual(requestedConfig({ name: "web" }), {});
});

test("a patch leaves alone what is absent or null, overwrites scalars, and replaces objects and lists whole", () => {
  const before: VmConfig = {
    runtime: "a",
    resources: { cpu_cores: 1, memory_mb: 128 },
    env: { A: "1", B: "2" },
    nameservers: ["9.9.9.9", "8.8.8.8"],
  };
  assert.deepEqual(mergeConfig(before, {}), before);
  assert.deepEqual(mergeConfig(before, { runtime: null, env: null }), before);
  assert.deepEqual(mergeConfig(before, { runtime: "b", resources: { memory_mb: 256 }, env: { C: "3" }, expose: [] }), {
    runtime: "b",
    resources: { memory_mb: 256 },
    env: { C: "3" },
    nameservers: ["9.9.9.9", "8.8.8.8"],
    expose: [],
  });
  assert.deepEqual(mergeConfig({ ...before, expose: [{ port: 1 }] }, { expose: [] }).expose, []);
});

test("of plugin and manifest, which both say what to run, the one that a patch gives takes the other's place", () => {
  assert.deepEqual(mergeConfig({ plugin: "hello" }, { manifest }), { manifest });
  assert.deepEqual(mergeConfig({ manifest }, { plugin: "hello" }), { plugin: "hello" });
  assert.throws(() => resolve({ plugin: "other", manifest }), { code: "invalid", message: /both say what to run/ });
});

test("a start is needed for what a guest is started with, and for nothing else", () => {
  const before = resolve({ nameservers: ["9.9.9.9"] });
  const after = (changes: VmConfig): boolean =>
    needsStart(before, resolve(mergeConfig(before.config, changes)), 0x0a000002);
  const yes: VmConfig[] = [
    { network: { mode: "vsock" } },
    { network: { tap: "mine" } },
    { resources: { memory_mb: 256 } },
    { env: { A: "1" } },
    { nameservers: [] },
    { kernel_cmdline: "quiet" },
    { ip_address: "10.0.0.9" },
    { manifest: { ...manifest, version: "2" } },
  ];
  for (const changes of yes) assert.ok(after(changes), JSON.stringify(changes));
  const no: VmConfig[] = [
    {},
    { network: { mode: " BRIDGED" } },
    { resources: { memory_mb: 128 } },
    { ip_address: "10.0.0.2" },
    { expose: [] },
  ];
  for (const changes of no) assert.ok(!after(changes), JSON.stringify(changes));
  assert.ok(!needsStart(resolve({}), JSON.parse(JSON.stringify(resolve({}))) as VmSpec, undefined));
});

test("an initramfs is pinned by its checksum wherever a later change would look for it", () => {
  const checksum = `sha256:${"a".repeat(64)}`;
  const pinned = { url: "file:///x", checksum };
  const own = pinInitramfs(resolve({ initramfs: { url: "file:///x" } }), checksum);
  assert.deepEqual([own.config.initramfs, own.manifest.initramfs, own.initramfs], [pinned, pinned, pinned]);
  const whole = pinInitramfs(resolve({ manifest }), checksum);
  assert.deepEqual(whole.config, { manifest: { ...manifest, initramfs: pinned } });
  assert.deepEqual(pinInitramfs(resolve({}), checksum).config, { plugin: "hello" });
});
