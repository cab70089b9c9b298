import assert from "node:assert/strict";
import test from "node:test";
import { parseSubnet } from "../model/address.ts";
import { ConfigService } from "./config-service.ts";
import { Bench, manifest, request } from "../testing/engine-bench.ts";

test("another mode waits for the next start, and then lease, tap and neighbour entry come and go with it; the tap keeps its name", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { vms, configs, engine, events } = running;
  await vms.create({ ...request("web"), cpu_cores: 2 });
  await bench.settle(running);
  const before = vms.get("web");
  const [first] = bench.host.taps.values();
  const patched = await configs.patch("web", { network: { mode: "VSOCK" } });
  assert.deepEqual([patched.version, patched.pending, patched.config.network], [2, true, { mode: "VSOCK" }]);
  assert.deepEqual([vms.get("web").network.mode, vms.get("web").pending_config], ["bridged", true]);
  assert.equal(events.at(-1)?.message, "configuration version 2, in force from the next start");
  await bench.settle(running);
  bench.assertAgreement();
  assert.deepEqual([...bench.host.taps.values()], [first], "a running VM keeps what it has");
  assert.equal(
    (await configs.patch("web", { network: { mode: "VSOCK" }, env: null })).version,
    3,
    "every write is one",
  );
  assert.equal((await configs.patch("web", { env: null })).version, 3, "nothing was written");
  await vms.restart("web");
  await bench.settle(running);
  bench.assertAgreement();
  const vsock = vms.get("web");
  assert.deepEqual([vsock.network, vsock.ip_address], [{ mode: "vsock", addresses: [] }, ""]);
  assert.deepEqual([vsock.pending_config, vsock.cpu_cores, vsock.mac_address], [undefined, 2, before.mac_address]);
  assert.deepEqual([bench.host.taps.size, bench.host.neighbours.size], [0, 0]);
  bench.host.otherBridges.set("br-lan", "up");
  const lease = { phase: "bound", nameservers: [] } as const;
  bench.host.guestNetwork = { applied: true, mode: "dhcp", address: "10.7.0.5", prefixLength: 24, lease };
  await configs.patch("web", { network: { mode: "dhcp", bridge: "br-lan" } });
  await vms.restart("web");
  await bench.settle(running);
  const [tap] = bench.host.taps.values();
  assert.deepEqual([tap?.name, tap?.bridge, vms.get("web").ip_address], ["vttap-web", "br-lan", "10.7.0.5"]);
  await configs.patch("web", { network: { mode: "bridged" }, resources: { memory_mb: 256 } });
  await vms.stop("web");
  assert.deepEqual([vms.get("web").memory_mb, vms.get("web").pending_config], [128, true]);
  await vms.start("web");
  await bench.settle(running);
  bench.assertAgreement();
  const back = vms.get("web");
  assert.deepEqual([back.network.tap, back.network.bridge, back.memory_mb], ["vttap-web", "vbr0", 256]);
  assert.equal(back.cpu_cores, 1, "an object of a patch replaces the whole of what was there");
  const versions = configs.history("web").map(({ version, config }) => [version, config.network?.mode]);
  assert.deepEqual(versions, [
    [5, "bridged"],
    [4, "dhcp"],
    [3, "VSOCK"],
    [2, "VSOCK"],
    [1, undefined],
  ]);
  assert.equal(configs.history("web", 1).length, 1);
  await engine.close();
  bench.store.close();
});

test("a patch is refused as a creation would be, and changes nothing", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { vms, configs, engine } = running;
  await vms.create(request("web"));
  await vms.create({ ...request("other"), config: { ip_address: "10.0.0.77" } });
  await bench.settle(running);
  bench.store.createPlugin({ ...manifest, name: "off" }, false);
  const cases: [Parameters<ConfigService["patch"]>[1], code: string, sentence: RegExp][] = [
    [{ network: { mode: "macvtap" } }, "invalid", /macvtap.*bridged, vsock or dhcp/],
    [{ network: { mode: "vsock", tap: "x" } }, "invalid", /network\.tap/],
    [{ expose: [{ port: 80, protocol: "udp" }] }, "not_supported", /expose\.0/],
    [{ kernel_cmdline: "ip=1.2.3.4" }, "invalid", /ip/],
    [{ resources: { memory_mb: 8 } }, "invalid", /8 MiB/],
    [{ plugin: "off" }, "disabled", /"off"/],
    [{ plugin: "none" }, "not_found", /"none"/],
    [{ ip_address: "10.0.0.1" }, "invalid", /this host's own/],
    [{ ip_address: "10.0.0.77" }, "exists", /10\.0\.0\.77 belongs to VM "other"/],
    [{ ip_address: "10.0.0.9", network: { mode: "vsock" } }, "invalid", /vsock/],
    [{ mac_address: "02:00:00:00:00:07" }, "invalid", /its MAC is 02:ab:cd:00:00:01 for life/],
  ];
  for (const [patch, code, message] of cases) await assert.rejects(configs.patch("web", patch), { code, message });
  await assert.rejects(configs.patch("nobody", {}), { code: "not_found" });
  assert.deepEqual([configs.get("web").version, configs.get("web").pending], [1, false]);
  await engine.close();
  bench.store.close();
});

test("two patches at once are both in force: neither is made from what the other has replaced", async () => {
  const bench = new Bench();
  const running = await bench.open();
  await running.vms.create(request("web"));
  const patches = [{ resources: { memory_mb: 200 } }, { env: { A: "1" } }, { kernel_cmdline: "quiet" }];
  await Promise.all(patches.map((patch) => running.configs.patch("web", patch)));
  const { version, config } = running.configs.get("web");
  assert.equal(version, 4);
  assert.deepEqual(config, { plugin: "hello", ...patches[0], ...patches[1], ...patches[2] });
  await bench.settle(running);
  await running.engine.close();
  bench.store.close();
});

test("a reserved address is kept through every mode, and given up only by name; a chosen MAC is the guest's, and a taken one is refused", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { vms, configs, engine } = running;
  const mac = "52:54:00:12:34:56";
  const config = { ip_address: "10.0.0.2", mac_address: mac.toUpperCase() };
  const made = await vms.create({ ...request("web"), config });
  assert.deepEqual([made.ip_address, made.mac_address], ["10.0.0.2", mac]);
  await bench.settle(running);
  bench.assertAgreement();
  assert.deepEqual([...bench.host.neighbours.values()], [mac]);
  await configs.patch("web", { network: { mode: "vsock" } });
  await vms.restart("web");
  await bench.settle(running);
  bench.assertAgreement();
  assert.equal((await vms.create(request("a"))).ip_address, "10.0.0.3", "the reserved one is passed over");
  const taken: [typeof config | object, string, RegExp][] = [
    [{ ip_address: "10.0.0.2" }, "exists", /10\.0\.0\.2 belongs to VM "web"/],
    [{ ip_address: "10.0.0.3" }, "exists", /10\.0\.0\.3 belongs to VM "a"/],
    [{ mac_address: mac }, "exists", /belongs to VM "web"/],
    [{ mac_address: "02:00:00:00:00:fe" }, "exists", /that of vbr0/],
    [{ mac_address: "02:ab:cd:00:00:09" }, "invalid", /by itself/],
  ];
  for (const [chosen, code, message] of taken) {
    await assert.rejects(vms.create({ ...request("b"), config: chosen }), { code, message });
  }
  assert.throws(() => vms.get("b"), { code: "not_found" });
  await configs.patch("web", { network: { mode: "bridged" } });
  await vms.restart("web");
  assert.equal(vms.get("web").ip_address, "10.0.0.2");
  await configs.patch("web", { ip_address: "10.0.0.50" });
  assert.deepEqual([vms.get("web").ip_address, vms.get("web").pending_config], ["10.0.0.2", true]);
  await vms.restart("web");
  await bench.settle(running);
  bench.assertAgreement();
  assert.equal(vms.get("web").ip_address, "10.0.0.50");
  await configs.patch("web", { ip_address: "" });
  assert.equal(vms.get("web").pending_config, undefined, "what it has stays, reserved or not");
  await configs.patch("web", { network: { mode: "vsock" } });
  await vms.restart("web");
  assert.equal((await vms.create({ ...request("c"), config: { ip_address: "10.0.0.50" } })).ip_address, "10.0.0.50");
  await bench.settle(running);
  bench.assertAgreement();
  await engine.close();
  bench.store.close();
});

test("another subnet: a running VM keeps its address until it is started anew, a stopped one moves at its start, a reserved one says why it can't", async () => {
  const bench = new Bench();
  const first = await bench.open();
  for (const name of ["live", "down", "waits"]) await first.vms.create(request(name));
  await first.vms.create({ ...request("kept"), config: { ip_address: "10.0.0.9" } });
  await bench.settle(first);
  for (const name of ["down", "kept", "waits"]) await first.vms.stop(name);
  bench.host.bridge = "missing";
  const { id } = await first.vms.start("waits");
  await first.engine.until(id, () => /vbr0/.test(first.vms.get("waits").reason ?? ""), 5000, "it is not blocked");
  await first.engine.close();
  bench.host.bridge = "up";

  const running = await bench.open(undefined, { pool: { subnet: parseSubnet("10.1.0.0/24"), gateway: 0x0a010001 } });
  const { vms, engine, configs } = running;
  const stuck = () => /10\.0\.0\.4 is none of the subnet 10\.1\.0\.0\/24/.test(vms.get("waits").reason ?? "");
  await engine.until(id, stuck, 5000, "it is started with an address of another subnet");
  const live = vms.get("live");
  assert.deepEqual([live.status, live.ip_address, live.network.addresses], ["running", "10.0.0.2", ["10.0.0.2/32"]]);
  assert.equal((await vms.start("down")).ip_address, "10.1.0.2");
  assert.equal((await vms.restart("waits")).ip_address, "10.1.0.3");
  await assert.rejects(vms.start("kept"), {
    code: "wrong_state",
    message: /10\.0\.0\.9 is not one of the subnet 10\.1/,
  });
  await configs.patch("kept", { ip_address: "10.1.0.9" });
  assert.equal((await vms.start("kept")).ip_address, "10.1.0.9");
  assert.equal((await vms.restart("live")).ip_address, "10.1.0.4");
  await bench.settle(running);
  bench.assertAgreement();
  await engine.close();
  bench.store.close();
});

test("a VM's ports are listened on from its creation to its deletion, running or not; a create that fails lets them go", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { vms } = running;
  const publish = (name: string, hostPort: number) =>
    vms.create({ ...request(name), config: { expose: [{ port: 80, host_port: hostPort }, { port: 81 }] } });
  const shown = (await publish("web", 8080)).network.published ?? [];
  assert.deepEqual(
    shown.map((port) => [port.host_address, port.host_port, port.port, port.listening]),
    [
      ["127.0.0.1", 8080, 80, true],
      ["127.0.0.1", 20_000, 81, true],
    ],
  );
  await assert.rejects(publish("other", 8080), { code: "in_use", message: /127\.0\.0\.1:8080 .* is VM "web"'s/ });
  bench.host.listening.add("127.0.0.1:9090");
  await assert.rejects(publish("other", 9090), { code: "in_use", message: /9090 is in use/ });
  await assert.rejects(publish("web", 8081), { code: "exists" });
  // Refused by the store, when its ports are listened on already.
  const config = { network: { tap: "vttap-web" }, expose: [{ port: 80, host_port: 8083 }] };
  await assert.rejects(vms.create({ ...request("other"), config }), { code: "exists", message: /vttap-web/ });
  assert.deepEqual([...bench.host.listening].sort(), ["127.0.0.1:20000", "127.0.0.1:8080", "127.0.0.1:9090"]);
  await bench.settle(running);
  await vms.stop("web");
  assert.ok(bench.host.listening.has("127.0.0.1:8080"));
  await vms.delete("web");
  assert.deepEqual([...bench.host.listening], ["127.0.0.1:9090"]);
  assert.equal((await publish("other", 8080)).network.published?.[1]?.host_port, 20_001);
  await vms.delete("other");
  await running.engine.close();
  bench.store.close();
});

test("published ports are changed while a VM runs, at once; what can't be published changes nothing", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { vms, configs } = running;
  await vms.create({ ...request("web"), config: { expose: [{ port: 80 }, { port: 81, host_port: 8081 }] } });
  await vms.create({ ...request("other"), config: { expose: [{ port: 80, host_port: 8082 }] } });
  await bench.settle(running);
  const listening = () => [...bench.host.listening].map((endpoint) => endpoint.replace("127.0.0.1:", "")).sort();
  assert.deepEqual(listening(), ["20000", "8081", "8082"]);
  const patched = await configs.patch("web", { expose: [{ port: 80 }, { port: 443, host_port: 8443 }] });
  assert.equal(patched.pending, false, "no start is needed");
  assert.deepEqual(listening(), ["20000", "8082", "8443"], "the chosen port stays");
  assert.deepEqual(
    vms.get("web").network.published?.map((port) => [port.host_port, port.port]),
    [
      [20_000, 80],
      [8443, 443],
    ],
  );
  await configs.patch("web", { expose: [{ port: 443 }, { port: 80 }] });
  assert.deepEqual(
    listening(),
    ["20000", "20001", "8082"],
    "a port that was named is not handed on as if it had been chosen",
  );
  await configs.patch("web", { expose: [{ port: 80 }, { port: 443, host_port: 8443 }] });
  bench.host.listening.add("127.0.0.1:9090");
  for (const [hostPort, message] of [
    [8082, /VM "other"'s/],
    [9090, /in use/],
  ] as const) {
    const expose = [
      { port: 1, host_port: 9000 },
      { port: 2, host_port: hostPort },
    ];
    await assert.rejects(configs.patch("web", { expose }), { code: "in_use", message });
  }
  assert.deepEqual(listening(), ["20000", "8082", "8443", "9090"]);
  assert.equal(configs.get("web").version, 4);
  // Beside a change that waits for the next start, the ports do not wait.
  const both = await configs.patch("web", { network: { mode: "vsock" }, expose: [{ port: 80, host_port: 20_000 }] });
  assert.equal(both.pending, true);
  assert.deepEqual(listening(), ["20000", "8082", "9090"]);
  await configs.patch("web", { expose: [] });
  assert.deepEqual([listening(), vms.get("web").network.published], [["8082", "9090"], undefined]);
  await vms.delete("other");
  await vms.delete("web");
  await running.engine.close();
  bench.store.close();
});
