/** A LAN without a DHCP server, or with one that answers nonsense: the VM says what it waits for, takes none of it, and goes on trying. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { VolantClient } from "@volant/sdk";
import { enterOwnNamespace } from "../namespace.ts";
import { type House, openHouse } from "./house.ts";
import { type Lan, LAN_BRIDGE, openLan } from "./lan.ts";
import { buildProbePlugin } from "./probe-plugin.ts";
import { VmNews } from "./vm-news.ts";

enterOwnNamespace(import.meta.url);

let house: House;
let lan: Lan;
let client: VolantClient;
let news: VmNews;

before(async () => {
  house = await openHouse({ env: { VOLANT_START_TIMEOUT_MS: "3000", VOLANT_LAN_BRIDGES: LAN_BRIDGE } });
  lan = await openLan();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
  client = new VolantClient({ baseUrl: "http://127.0.0.1:7777" });
  news = new VmNews(client);
});

after(async () => {
  news?.end();
  await house?.close();
  await lan?.close();
});

test("without a server the VM says, after its time, that nobody answers on its bridge; an event says so, and it goes on", async () => {
  const config = join(house.directory, "lan.json");
  writeFileSync(config, JSON.stringify({ network: { mode: "dhcp", bridge: LAN_BRIDGE } }));
  await house.volarDone("vms", "create", "lan", "--plugin", "probe", "--config", config);
  const sentence = `no lease after 3 s on bridge ${LAN_BRIDGE}: no DHCP server has answered; still trying`;
  const vm = await news.until("lan", ({ reason }) => reason === sentence, "it does not say that it is late");
  assert.deepEqual([vm.status, vm.ip_address, vm.agent.attached], ["starting", "", true]);
  assert.ok(
    news.events.some(
      ({ type, status, reason }) => type === "VM_UPDATED" && status === "starting" && reason === sentence,
    ),
  );
  assert.match(await house.volarDone("vms", "list"), /no DHCP server has answered; still trying/);
  const waited = await house.volar("vms", "wait", "lan", "--timeout", "1");
  assert.equal(waited.code, 1);
  assert.match(waited.stderr, /no lease after 3 s/);
});

test("a server's nonsense, of each kind, is no lease: the VM says what was wrong with it, and its guest stays well and without an address", async () => {
  lan.ip("route", "add", "255.255.255.255", "dev", "lan0");
  const server = await lan.start([process.execPath, join(import.meta.dirname, "nonsense-dhcp-server.ts")], /ready/);
  const ignored = (vm: Vm): boolean => / was ignored: /.test(vm.reason ?? "");
  const vm = await news.until("lan", ignored, "it does not say that it was answered nonsense");
  assert.match(vm.reason ?? "", /^no lease after 3 s on bridge br-lan: an offer.* was ignored: .*; still trying$/);
  const answered = () => [...server.output().matchAll(/answered with \d+ kinds/g)].length;
  const deadline = Date.now() + 120_000;
  while (answered() < 3 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 250));
  assert.ok(answered() >= 3, server.output());
  assert.doesNotMatch(server.output(), /not sent/);
  const now = await client.vms.get("lan");
  assert.deepEqual([now.status, now.ip_address, now.network.addresses, now.agent.attached], ["starting", "", [], true]);
  const links = await house.volarDone("vms", "exec", "lan", "--", "/bin/busybox", "ip", "-o", "addr", "show");
  assert.doesNotMatch(links, /eth0 +inet /);
  await server.stop();
});

test("as soon as there is a server that makes sense, the VM has its lease and runs", async () => {
  await lan.startDnsmasq(join(house.directory, "dnsmasq.leases"));
  const vm = await news.until("lan", ({ status }) => status === "running", "it does not run");
  assert.match(vm.ip_address, /^10\.77\.0\.\d+$/);
  assert.equal(vm.reason, undefined);
  assert.equal(await lan.fetch(vm.ip_address), "probe\n");
});
