import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import test, { after, before } from "node:test";
import { Netlink, watchNftables } from "@volant/netlink";
import { GuestPolicy } from "../../packages/host/src/policy/guest-policy.ts";
import { BridgeManager } from "../../packages/volantd/src/network/bridge-manager.ts";
import { PolicyKeeper } from "../../packages/volantd/src/network/policy-keeper.ts";
import type { VmPolicy } from "../../packages/volantd/src/plan/policy.ts";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { dhcp, ethernet, ipv4, udp } from "./policy-frames.ts";
import { deleteBridge, makeBridge, Port } from "./policy-lan.ts";

enterOwnNamespace(import.meta.url);

const INSTALLATION = "abcdef01";
const PATIENCE_MS = 60_000;
const SERVER = "02:77:00:00:00:05";

/** One volantd's view of the network after another's. */
class Life {
  readonly manager: BridgeManager;
  readonly netlink: Netlink;
  readonly #news = new EventEmitter();
  readonly #ended = new AbortController();
  readonly #watching: Promise<void>;

  constructor(netlink: Netlink) {
    this.netlink = netlink;
    this.manager = new BridgeManager({
      netlink,
      installation: INSTALLATION,
      bridge: "vbr0",
      hostAddress: "10.77.0.1",
      lans: { check: async () => undefined, made: async () => [] },
      restore: async () => [],
      policy: new PolicyKeeper({ netlink, installation: INSTALLATION }),
    });
    this.#watching = this.manager.watch(() => this.#news.emit("change"), this.#ended.signal);
  }

  /** Looks until it is so, again after each change that is told. */
  async until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    for (;;) {
      const changed = once(this.#news, "change", { signal });
      changed.catch(() => {});
      if (await holds()) return;
      await changed.catch(() => assert.fail(what));
    }
  }

  async entry(vmId: number) {
    const { policy } = await this.manager.observe();
    assert.ok(policy?.usable === true);
    return policy.entries.get(vmId);
  }

  async end(): Promise<void> {
    this.#ended.abort();
    await this.#watching;
    await this.manager.close();
  }
}

const open = async () => new Life(await Netlink.open());
let life: Life;

before(async () => {
  makeBridge();
  life = await open();
});

after(async () => {
  await life.end();
  deleteBridge();
});

function policy(vmId: number, changes: Partial<VmPolicy> = {}): VmPolicy {
  const mac = `02:77:00:00:00:0${vmId}`;
  const addresses = [`10.77.0.${vmId}`];
  return { vmId, tap: `vttap-vm${vmId}`, mac, mode: "bridged", addresses, antiSpoof: true, ...changes };
}

test("entries that come together are put in together; each is seen as it was given, and goes alone", async () => {
  await Promise.all([1, 2, 3].map((vmId) => life.manager.putPolicy(policy(vmId))));
  for (const vmId of [1, 2, 3]) assert.deepEqual(await life.entry(vmId), policy(vmId));
  await life.manager.removePolicy(2);
  assert.deepEqual([await life.entry(1), await life.entry(2)], [policy(1), undefined]);
});

test("an entry that can't be does not keep those that come with it from being", async () => {
  const [bad, good] = await Promise.allSettled([
    life.manager.putPolicy(policy(4, { addresses: ["224.0.0.1"] })),
    life.manager.putPolicy(policy(5)),
  ]);
  assert.deepEqual([bad.status, good.status], ["rejected", "fulfilled"]);
  assert.deepEqual(await life.entry(5), policy(5));
});

test("a guarded tap is bound before it is up, is seen so, and is bound again where it was let go", async () => {
  await life.manager.createTap({ vmId: 1, name: "vttap-vm1", uid: 0, guarded: true });
  const tap = async () => (await life.manager.observe()).taps.find(({ vmId }) => vmId === 1);
  assert.deepEqual([(await tap())?.guarded, (await tap())?.up], [true, true]);
  execFileSync("tc", ["qdisc", "delete", "dev", "vttap-vm1", "ingress"]);
  const loose = await tap();
  assert.ok(loose !== undefined && loose.guarded === false);
  await life.manager.repairTap(loose, undefined, true);
  assert.equal((await tap())?.guarded, true);
  await life.manager.repairTap(loose, undefined, false);
  assert.equal((await tap())?.guarded, false);
  await life.manager.deleteTap(loose);
});

test("a ruleset that somebody flushes, and an entry that somebody takes out, are told at once", async () => {
  const usable = async () => {
    const view = (await life.manager.observe()).policy;
    assert.ok(view?.usable === true);
    return view;
  };
  assert.equal((await usable()).intact, true);
  execFileSync("nft", ["flush", "ruleset"]);
  await life.until(async () => !(await usable()).intact, "the flush is not told");
  await life.manager.putPolicy(policy(1));
  await life.until(async () => (await usable()).intact, "the rules are not back");
  execFileSync("nft", ["flush", "map", "bridge", "volant", "guests"]);
  await life.until(async () => (await life.entry(1)) === "damaged", "the damage is not told");
  await life.manager.putPolicy(policy(1));
  assert.deepEqual(await life.entry(1), policy(1));
});

test("the kernel tells who changed nftables, by which our own changes are known", { timeout: 60_000 }, async () => {
  const ending = new AbortController();
  const changes = watchNftables(ending.signal);
  const next = changes.next();
  const child = spawn("nft", ["add", "table", "bridge", "told"], { stdio: "ignore" });
  const { value } = await next;
  assert.deepEqual(value, { by: child.pid, tables: [{ family: 7, name: "told" }] });
  const told = async (...args: string[]) => {
    const following = changes.next();
    execFileSync("nft", args);
    return (await following).value?.tables?.map(({ family, name }) => `${family} ${name}`).sort();
  };
  // Whatever is changed, a transaction names its tables, and those alone.
  const [set, two] = ["add set bridge told names { type ifname; }", "add table ip other"];
  assert.deepEqual(await told(`${set}; ${two}`), ["2 other", "7 told"]);
  assert.deepEqual(await told("add element bridge told names { one, two }"), ["7 told"]);
  assert.deepEqual(await told("add chain ip other c; add rule ip other c counter"), ["2 other"]);
  assert.deepEqual(await told("add counter bridge told frames"), ["7 told"]);
  assert.deepEqual(await told("delete element bridge told names { one }"), ["7 told"]);
  assert.deepEqual(await told("delete table bridge told; delete table ip other"), ["2 other", "7 told"]);
  ending.abort();
  await changes.return();
});

test("a lease is what the server answers to the guest's own question: kept over a restart, renewed, and over in the end", async (t) => {
  const guest = await Port.open("vttap-vm6", undefined);
  const server = await Port.open("server0", undefined);
  t.after(() => {
    guest[Symbol.dispose]();
    server[Symbol.dispose]();
  });
  const mac = "02:77:00:00:00:06";
  const vm = { vmId: 6, link: Number(ipJson("link", "show", "dev", "vttap-vm6")[0]?.["ifindex"]), mac };
  const entry = (address: string, leaseSeconds: number) =>
    policy(6, { mode: "dhcp", addresses: [address], leaseSeconds });
  let transaction = 0;
  const exchange = (type: number, given: string, leaseSeconds: number) => {
    transaction += 1;
    const question = dhcp({ operation: 1, transaction, hardware: mac, type: 3 });
    guest.send(ethernet(mac, 0x0800, ipv4({ source: "0.0.0.0" }, udp(68, 67, question))));
    const answer = dhcp({ operation: 2, transaction, hardware: mac, type, given, leaseSeconds });
    server.send(ethernet(SERVER, 0x0800, ipv4({ source: "10.77.0.1" }, udp(67, 68, answer))));
  };
  await life.manager.putPolicy(policy(6, { mode: "dhcp", addresses: [] }));
  const { manager } = life;
  manager.followLease(vm);
  manager.followLease(vm);
  assert.equal(manager.lease(6), undefined);
  exchange(5, "10.77.0.60", 3600);
  await life.until(() => life.manager.lease(6)?.address === "10.77.0.60", "the lease is not seen");
  await life.manager.putPolicy(entry("10.77.0.60", 3600));

  await life.end();
  life = await open();
  assert.deepEqual(await life.entry(6), entry("10.77.0.60", 3600));
  assert.deepEqual([life.manager.lease(6)?.address, life.manager.lease(6)?.leaseSeconds], ["10.77.0.60", 3600]);
  life.manager.followLease(vm);
  exchange(5, "10.77.0.61", 3600);
  await life.until(() => life.manager.lease(6)?.address === "10.77.0.61", "the new lease is not seen");
  exchange(5, "127.0.0.9", 3600);
  await life.until(() => life.manager.lease(6) === undefined, "an address that nobody can have is believed");
  exchange(5, "10.77.0.61", 3600);
  await life.until(() => life.manager.lease(6)?.address === "10.77.0.61", "the lease is not seen again");
  exchange(6, "0.0.0.0", 0);
  await life.until(() => life.manager.lease(6) === undefined, "the server's refusal is not seen");
  exchange(5, "10.77.0.62", 1);
  await life.until(() => life.manager.lease(6) !== undefined, "the short lease is not seen");
  await life.until(() => life.manager.lease(6) === undefined, "the end of the lease is not seen");
  ip("link", "set", "vttap-vm6", "down");
  await life.manager.removePolicy(6);
  assert.equal(await life.entry(6), undefined);
});

test("a tap whose name the rules can't hold is refused before anything is made; one that a user chose is held as ours are", async () => {
  await assert.rejects(life.manager.checkReady("tap*", undefined, true), { code: "invalid", message: /"tap\*"/ });
  await assert.rejects(life.manager.checkReady("vttap-", undefined, false), { code: "invalid", message: /"vttap-"/ });
  await life.manager.checkReady("tap*", undefined, false);
  await life.manager.checkReady("tap0", undefined, true);
  await life.manager.checkReady("vttap-new", undefined, true);
});

test("what an installation that is gone left in the rules gives way to a VM whose tap has that name; while its tap is there, it does not", async (t) => {
  const gone = new GuestPolicy({ installation: "ffff0000", nft: "/usr/sbin/nft" });
  t.after(() => gone.reconcile([]));
  const theirs = { ...policy(8, { mac: "02:78:00:00:00:08" }), antiSpoof: false };
  const others = { ...policy(9), vmId: 7 };
  await gone.reconcile([theirs, others]);
  await life.manager.putPolicy(policy(8));
  assert.deepEqual(await life.entry(8), policy(8));
  const left = async () =>
    (await gone.observe()).elements.flatMap((element) => ("tap" in element ? [element.tap] : []));
  assert.deepEqual(new Set(await left()), new Set([others.tap]));
  await life.manager.removePolicy(8);

  // Its tap is ours, as after a store that was restored.
  await gone.reconcile([theirs, others]);
  await life.manager.createTap({ vmId: 8, name: theirs.tap, uid: 0 });
  await life.manager.putPolicy(policy(8));
  assert.deepEqual(await life.entry(8), policy(8));
  await life.manager.removePolicy(8);
  ip("link", "delete", theirs.tap);

  const { netlink } = life;
  await netlink.taps.create({ name: others.tap, attach: { alias: "volant:ffff0000:7", up: true } });
  t.after(() => ip("link", "delete", others.tap));
  await assert.rejects(life.manager.putPolicy(policy(9)), { code: "exists", message: /vttap-vm9 .*\(ffff0000\)/ });
  assert.deepEqual(new Set(await left()), new Set([others.tap]));
  await assert.rejects(life.manager.checkReady(others.tap, undefined, true), {
    code: "exists",
    message: "the tap vttap-vm9 is another Volant installation's (ffff0000): it is left alone",
    hint: /^if that installation is gone: ip link delete dev vttap-vm9;/,
  });
});

test("a thousand taps are guarded and held, and one look sees all of them", async () => {
  const ids = Array.from({ length: 1000 }, (_, index) => 1000 + index);
  const of = (vmId: number) =>
    policy(vmId, {
      mac: `02:77:00:00:${(vmId >> 8).toString(16).padStart(2, "0")}:${(vmId & 255).toString(16).padStart(2, "0")}`,
      addresses: [`10.78.${vmId >> 8}.${vmId & 255}`],
    });
  await Promise.all(ids.map((vmId) => life.manager.putPolicy(of(vmId))));
  await Promise.all(
    ids.map((vmId) => life.manager.createTap({ vmId, name: of(vmId).tap, uid: 0, guarded: true, bridge: "vbr0" })),
  );
  const { taps, policy: view } = await life.manager.observe();
  assert.ok(view?.usable === true && view.intact);
  const held = taps.filter(({ vmId, guarded, up }) => vmId >= 1000 && guarded === true && up);
  assert.equal(held.length, 1000);
  for (const vmId of ids) assert.deepEqual(view.entries.get(vmId), of(vmId));
  await Promise.all(held.map((tap) => life.manager.deleteTap(tap)));
  await Promise.all(ids.map((vmId) => life.manager.removePolicy(vmId)));
  assert.equal(await life.entry(1500), undefined);
});
