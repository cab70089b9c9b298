import assert from "node:assert/strict";
import test from "node:test";
import type { CreateVmRequest, Manifest } from "@volant/contract";
import fc from "fast-check";
import { parseSubnet } from "./address.ts";
import { guestSettings } from "./guest-config.ts";
import { checkMemory, minimumMemoryMib } from "./memory.ts";
import { needsIPAllocation, needsTapDevice, networkMode, resolveNetworkConfig } from "./network.ts";
import { requestedPlugin, resolveVm } from "./vm-spec.ts";
import { ALLOWED_ACTIONS, checkAction, conditionOf } from "./vm-state.ts";

const managed = { bridge: "vbr0", pool: { subnet: parseSubnet("192.168.127.0/24"), gateway: 0xc0a87f01 } };
const manifest: Manifest = {
  name: "hello",
  version: "1",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { base_url: "http://127.0.0.1:80", entrypoint: ["/bin/hello"], env: { A: "1", B: "1" } },
  initramfs: { url: "file:///x" },
  health_check: { endpoint: "/" },
};
const resolve = (request: Partial<CreateVmRequest>, changes: Partial<Manifest> = {}) =>
  resolveVm({ name: "web", ...request }, { ...manifest, ...changes }, managed);

test("a mode is compared trimmed and in lower case; none is bridged; another word is refused", () => {
  for (const mode of [undefined, "", "  ", "Bridged", " BRIDGED "]) {
    const config = mode === undefined ? undefined : { mode };
    assert.equal(networkMode(config), "bridged");
    assert.ok(needsTapDevice(config) && needsIPAllocation(config));
  }
  assert.ok(!needsTapDevice({ mode: " VSOCK" }) && !needsIPAllocation({ mode: "vsock" }));
  assert.ok(needsTapDevice({ mode: "Dhcp" }) && !needsIPAllocation({ mode: "Dhcp" }));
  assert.throws(() => networkMode({ mode: "macvtap" }), { code: "invalid" });
});

test("a VM's own network wins whole over the manifest's", () => {
  const network = fc.record(
    { mode: fc.constantFrom("bridged", "vsock", "dhcp"), bridge: fc.string() },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.option(network, { nil: undefined }), fc.option(network, { nil: undefined }), (theirs, own) => {
      const winner = resolveNetworkConfig(
        theirs === undefined ? {} : { network: theirs },
        own === undefined ? {} : { network: own },
      );
      assert.equal(winner, own ?? theirs);
    }),
  );
});

test("only the operator loosens what a guest may send: a mode or a manifest never does, and a manifest may tighten it", () => {
  const spoof = (config: CreateVmRequest["config"], changes: Partial<Manifest> = {}, setting?: boolean) =>
    resolveVm(
      { name: "web", ...(config === undefined ? {} : { config }) },
      { ...manifest, ...changes },
      managed,
      setting,
    ).antiSpoof;
  assert.equal(spoof(undefined), true);
  for (const mode of ["bridged", "dhcp"]) assert.equal(spoof({ network: { mode } }), true);
  assert.equal(spoof({ policy: { anti_spoof: false } }), false);
  assert.equal(spoof(undefined, {}, false), false);
  assert.equal(spoof(undefined, { policy: { anti_spoof: true } }, false), true);
  assert.equal(spoof({ policy: { anti_spoof: false } }, { policy: { anti_spoof: true } }), false);
  assert.equal(spoof({ policy: { anti_spoof: true } }, {}, false), true);
  assert.throws(() => spoof(undefined, { policy: { anti_spoof: false } }), {
    code: "invalid",
    message: /only tighten/,
  });
});

test("the request wins over its config, which wins over the manifest", () => {
  assert.equal(resolve({}).memoryMib, 128);
  assert.equal(resolve({ config: { resources: { memory_mb: 200 } } }).memoryMib, 200);
  assert.equal(resolve({ memory_mb: 300, config: { resources: { memory_mb: 200 } } }).memoryMib, 300);
  assert.equal(resolve({}).runtime, "hello");
  assert.equal(requestedPlugin({ name: "web", plugin: "a", runtime: "b" }), "a");
  assert.equal(requestedPlugin({ name: "web", runtime: "b" }), "b");
  assert.throws(() => requestedPlugin({ name: "web" }), { code: "invalid" });
});

test("what this version can't honour is refused by the field's name", () => {
  const cases: [field: RegExp, request: Partial<CreateVmRequest>, changes: Partial<Manifest>][] = [
    [/rootfs/, {}, { rootfs: { url: "/x" } }],
    [/disks/, {}, { disks: [{ name: "d", source: "/x" }] }],
    [/cloud_init/, {}, { cloud_init: { user_data: { content: "x" } } }],
    [/devices/, { config: { devices: { pci_passthrough: ["0000:00:01.0"] } } }, {}],
    [/expose\.0/, { config: { expose: [{ port: 80, protocol: "udp" }] } }, {}],
    [/rootfs/, { config: { rootfs: { url: "/x" } } }, {}],
    [/cloud_init/, { config: { cloud_init: { user_data: { content: "x" } } } }, {}],
    [/devices/, {}, { devices: { pci_passthrough: ["0000:00:01.0"] } }],
    [/kernel_override/, { config: { kernel_override: "/x" } }, {}],
    [/network\.bridge/, { config: { network: { bridge: "br0" } } }, {}],
    [/auto_assign/, { config: { network: { auto_assign: false } } }, {}],
  ];
  for (const [field, request, changes] of cases) {
    assert.throws(
      () => resolve(request, changes),
      (error: Error & { code: string }) => {
        assert.equal(error.code, "not_supported", error.message);
        assert.match(error.message, field);
        return true;
      },
    );
  }
  assert.doesNotThrow(() => resolve({ config: { expose: [], devices: {} } }, { disks: [] }));
  assert.deepEqual(resolve({ config: { metadata: { owner: "ops" } } }, {}).config.metadata, { owner: "ops" });
});

test("what can't be right is refused in words", () => {
  const cases: [RegExp, Partial<CreateVmRequest>, Partial<Manifest>][] = [
    [/initramfs.*rootfs/, {}, { initramfs: undefined as never }],
    [/entrypoint/, {}, { workload: { base_url: "http://x" } }],
    [/base_url/, {}, { workload: { entrypoint: ["x"] } }],
    [/subnet/, { config: { network: { subnet: "10.0.0.0/24" } } }, {}],
    [/gateway/, { config: { network: { gateway: "192.168.127.9" } } }, {}],
    [/tap/, { config: { network: { tap: "a/b" } } }, {}],
    [/bridge/, { config: { network: { mode: "dhcp", bridge: "a/b" } } }, {}],
    [/subnet.*DHCP/, {}, { network: { mode: "dhcp", subnet: "192.168.127.0/24" } }],
    [/gateway.*DHCP/, {}, { network: { mode: "dhcp", gateway: "192.168.127.1" } }],
    [/auto_assign.*dhcp/, {}, { network: { mode: "dhcp", auto_assign: true } }],
    [/network\.tap.*vsock/, { config: { network: { mode: "vsock", tap: "tap0" } } }, {}],
    [/network\.bridge.*vsock/, {}, { network: { mode: "vsock", bridge: "vbr0" } }],
    [/api_port/, { api_port: "70000" }, {}],
    [/api_host/, { api_host: "a b" }, {}],
    [/nameserver/, { config: { nameservers: ["nine"] } }, {}],
  ];
  for (const [sentence, request, changes] of cases) {
    assert.throws(
      () => resolve(request, changes),
      (error: Error & { code: string }) => {
        assert.equal(error.code, "invalid", error.message);
        assert.match(error.message, sentence);
        return true;
      },
    );
  }
});

test("in mode dhcp a VM may name a bridge; the guest is told the mode and its MAC, and no address", () => {
  const spec = resolve({ config: { network: { mode: " DHCP", bridge: "br-lan" } } });
  assert.deepEqual([spec.mode, spec.bridge], ["dhcp", "br-lan"]);
  assert.equal(
    resolve({ config: { network: { mode: "dhcp", bridge: "vbr0", auto_assign: false } } }).bridge,
    undefined,
  );
  const input = { spec, vmId: 7, generation: 3, mac: "02:00:00:00:00:07", pool: managed.pool, nameservers: [] };
  assert.deepEqual(guestSettings(input).network, { mode: "dhcp", mac: "02:00:00:00:00:07" });
});

test("the guest is told its network, and the VM's environment wins over the manifest's", () => {
  const spec = resolve({ config: { env: { B: "2" } } });
  const settings = guestSettings({
    spec,
    vmId: 7,
    generation: 3,
    mac: "02:00:00:00:00:07",
    address: 0xc0a87f02,
    pool: managed.pool,
    nameservers: ["9.9.9.9"],
  });
  assert.deepEqual(settings.network, {
    mode: "bridged",
    address: "192.168.127.2",
    prefixLength: 24,
    gateway: "192.168.127.1",
    mac: "02:00:00:00:00:07",
  });
  assert.deepEqual(settings.workload?.env, { A: "1", B: "2" });
  assert.equal(settings.workload?.restart, "always");
  assert.equal(settings.configVersion, "7-3");
  assert.deepEqual(settings.nameservers, ["9.9.9.9"]);
});

test("a guest needs 72 MiB and its files twice", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 34 }), (bytes) => {
      const needed = minimumMemoryMib(bytes);
      assert.ok(needed * 2 ** 20 >= 72 * 2 ** 20 + 2 * bytes && needed <= 73 + (2 * bytes) / 2 ** 20);
      assert.doesNotThrow(() => checkMemory(needed, bytes));
      assert.throws(() => checkMemory(needed - 1, bytes), { code: "invalid" });
    }),
  );
  assert.throws(() => checkMemory(8, 1_000_000), /^VolantError: 8 MiB .* 74 MiB$/);
});

test("each state allows what its row of the table says, and a VM on its way out allows only its deletion", () => {
  const vm = { name: "web", desired: "running", status: "running" } as const;
  assert.throws(() => checkAction("start", vm), {
    code: "wrong_state",
    message: 'VM "web" can\'t be started: it is running already',
  });
  assert.doesNotThrow(() => checkAction("start", { ...vm, status: "crashed" }));
  assert.equal(conditionOf({ desired: "stopped", status: "running" }), "stopping");
  assert.equal(conditionOf({ desired: "absent", status: "running" }), "deleting");
  assert.throws(() => checkAction("restart", { ...vm, desired: "absent" }), { code: "wrong_state" });
  assert.ok(Object.values(ALLOWED_ACTIONS).every((actions) => actions.delete));
});
