import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import test, { after, type TestContext } from "node:test";
import { VolantError } from "@volant/contract";
import { hasChecksumOffload, Netlink, setChecksumOffload } from "@volant/netlink";
import { GuestPolicy } from "../../packages/host/src/policy/guest-policy.ts";
import { GUARD_ALIAS, GUARD_LINK, TapGuard } from "../../packages/host/src/policy/tap-guard.ts";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import {
  BRIDGED,
  DHCP,
  finished,
  foreignBpdu,
  FORGERIES,
  type Forgery,
  LEGITIMATE,
  PEER,
  STRANGER,
} from "./policy-forgeries.ts";
import { anyFrames } from "./policy-any-frames.ts";
import { SEGMENT_FORGERIES, UNSOUND } from "./policy-unsound.ts";
import { BRIDGE, deleteBridge, GATEWAY_MAC, learnedMacs, makeBridge, neighbourMac, Port } from "./policy-lan.ts";

enterOwnNamespace(import.meta.url);

const NFT = "/usr/sbin/nft";
const FRAMES_PER_KIND = 25;
const PATIENCE_MS = 60_000;

const netlink = await Netlink.open();
const guard = new TapGuard(netlink);
/** As it is where the kernel takes no program: all frames go by the link. */
const slowGuard = new TapGuard(netlink, () => Promise.reject(new VolantError("not_ready", "no programs here")));
const GUARDS = [
  ["sound frames spared the link", guard],
  ["all frames by the link", slowGuard],
] as const;
const policy = new GuestPolicy({ installation: "abcd1234", nft: NFT });
const entryOf = (guest: typeof BRIDGED | typeof DHCP | typeof PEER, mode: "bridged" | "dhcp") => ({
  vmId: guest.vmId,
  tap: guest.tap,
  mac: guest.mac,
  mode,
  addresses: [guest.address],
  antiSpoof: true,
});
const ENTRIES = [entryOf(BRIDGED, "bridged"), entryOf(DHCP, "dhcp"), entryOf(PEER, "bridged")];
const [FENCE] = LEGITIMATE;
/** One that the guard sends by its link. */
const FENCE_BY_LINK = LEGITIMATE.find(({ name }) => name === "ICMP whose checksum the host fills in");
const FENCE_FROM_DHCP = LEGITIMATE.find(({ from }) => from === "dhcp");

after(async () => {
  execFileSync(NFT, ["flush", "ruleset"]);
  await guard.release();
  await netlink.close();
});

interface Arrival {
  readonly peer: boolean;
  readonly outside: boolean;
}

/** The bridge itself speaks IPv6 once in a while. */
function isHostsOwn(frame: Buffer): boolean {
  return frame.subarray(6, 14).toString("hex") === `${GATEWAY_MAC.replaceAll(":", "")}86dd`;
}

/** A bridge with four guests and the outside on it. */
class Lan {
  readonly bridged: Port;
  readonly dhcp: Port;
  readonly stranger: Port;
  readonly peer: Port;
  readonly outside: Port;
  #sent = 0;
  /** What has come out and was not asked for yet. */
  readonly #came = { peer: [] as Buffer[], outside: [] as Buffer[] };

  private constructor([bridged, dhcp, stranger, peer, outside]: readonly [Port, Port, Port, Port, Port]) {
    this.bridged = bridged;
    this.dhcp = dhcp;
    this.stranger = stranger;
    this.peer = peer;
    this.outside = outside;
  }

  /** @param through what the guests' frames go through first */
  static async open(t: TestContext, through: TapGuard | "nothing" = guard): Promise<Lan> {
    makeBridge();
    const opened: Port[] = [];
    t.after(() => {
      for (const port of opened) port[Symbol.dispose]();
      deleteBridge();
    });
    const open = async (name: string, by?: TapGuard): Promise<Port> => {
      const port = await Port.open(name, by);
      opened.push(port);
      return port;
    };
    const by = through === "nothing" ? undefined : through;
    return new Lan([
      await open(BRIDGED.tap, by),
      await open(DHCP.tap, by),
      await open(STRANGER.tap, by),
      await open(PEER.tap, by),
      await open("outside0"),
    ]);
  }

  /** Sends a frame and gives the mark in it. */
  post(forgery: Forgery): Buffer {
    const { from, frame, header } = forgery;
    this.#sent += 1;
    const tag = Buffer.from(`volant-test-frame-${this.#sent};`);
    this[from].send(finished(forgery, frame(tag)), header);
    return tag;
  }

  #collect(): void {
    this.#came.peer.push(...this.peer.received());
    this.#came.outside.push(...this.outside.received());
  }

  /** Frames with this mark that have come to the outside so far. */
  atOutside(tag: Buffer): Buffer[] {
    this.#collect();
    return this.#came.outside.filter((bytes) => bytes.includes(tag));
  }

  cameOut(tag: Buffer): Arrival {
    this.#collect();
    const came = (frames: readonly Buffer[]) => frames.some((bytes) => bytes.includes(tag));
    return { peer: came(this.#came.peer), outside: came(this.#came.outside) };
  }

  /** What comes out at both ends for a frame, in bytes: none, one or its segments. Nothing else may be under way. */
  async outcome({ from, header }: Pick<Forgery, "from" | "header">, frame: Buffer): Promise<readonly string[]> {
    this.#collect();
    for (const list of Object.values(this.#came)) list.length = 0;
    this[from].offer(frame, header ?? Buffer.alloc(10));
    await this.settle();
    const texts = (list: readonly Buffer[]) =>
      list
        .filter((bytes) => !bytes.includes("volant-test-frame-") && !isHostsOwn(bytes))
        .map((bytes) => bytes.toString("hex"));
    return [...texts(this.#came.peer), "outside", ...texts(this.#came.outside)];
  }

  /** Waits until a frame is out at both ends. */
  async arrived(tag: Buffer, what: string): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const { peer, outside } = this.cameOut(tag);
      if (peer && outside) return;
      assert.ok(Date.now() < deadline, `${what}: peer ${peer}, outside ${outside}`);
      await new Promise(setImmediate);
    }
  }

  /**
   * Sends frames that are let through, and waits for them: whatever was sent before and is let through, too, is out by then. One
   * goes by the guard's link, which others overtake.
   */
  async settle(fences = [FENCE, FENCE_BY_LINK]): Promise<void> {
    for (const fence of fences) {
      assert.ok(fence !== undefined);
      await this.arrived(this.post(fence), `the fence, ${fence.name}`);
    }
  }

  /** Sends the frame once, and says where it came out, once a later one has. */
  async send(forgery: Forgery, fences?: Parameters<Lan["settle"]>[0]): Promise<Arrival> {
    const tag = this.post(forgery);
    await this.settle(fences);
    return this.cameOut(tag);
  }
}

const NOWHERE: Arrival = { peer: false, outside: false };
const EVERYWHERE: Arrival = { peer: true, outside: true };

test("with the rules off, every kind of forged frame arrives, and the bridge learns foreign MACs", async (t) => {
  const lan = await Lan.open(t, "nothing");
  assert.ok(FORGERIES.length >= 15);
  for (const forgery of FORGERIES) {
    assert.deepEqual(await lan.send(forgery), forgery.linkLocal === true ? NOWHERE : EVERYWHERE, forgery.name);
    if (forgery.teaches !== undefined) assert.ok(learnedMacs().includes(forgery.teaches), forgery.name);
  }
});

test("with the rules off, a checksum that the host fills in makes a guest's own frame the peer's", async (t) => {
  const lan = await Lan.open(t, "nothing");
  for (const [name, at] of [
    ["ARP whose checksum makes its sender the peer's address", 28],
    ["UDP whose checksum makes its source the peer's address", 26],
  ] as const) {
    const forgery = FORGERIES.find((other) => other.name === name);
    assert.ok(forgery !== undefined);
    const tag = lan.post(forgery);
    await lan.arrived(tag, name);
    const senders = lan.atOutside(tag).map((bytes) => bytes.subarray(at, at + 4).join("."));
    assert.deepEqual(senders, [PEER.address], name);
  }
});

for (const [way, through] of GUARDS) {
  test(`with the rules on, no forged frame arrives at a peer or outside, and the bridge learns no foreign MAC: ${way}`, async (t) => {
    await policy.put(ENTRIES);
    const lan = await Lan.open(t, through);
    ip("neighbour", "replace", PEER.address, "lladdr", PEER.mac, "nud", "reachable", "dev", BRIDGE);
    const before = await policy.observe();
    const counts = { bridged: 0, dhcp: 0, stranger: 0 };
    const tags: Buffer[] = [];
    for (const forgery of FORGERIES) {
      for (let frame = 0; frame < FRAMES_PER_KIND; frame += 1) {
        tags.push(lan.post(forgery));
        if (forgery.uncounted !== true) counts[forgery.from] += 1;
      }
      await lan.settle();
      for (const tag of tags.slice(-FRAMES_PER_KIND)) assert.deepEqual(lan.cameOut(tag), NOWHERE, forgery.name);
      assert.deepEqual(learnedMacs(), [BRIDGED.mac], `${forgery.name}: the bridge learned`);
      assert.equal(neighbourMac(PEER.address), PEER.mac, `${forgery.name}: the host believed it`);
    }
    assert.ok(tags.length >= 1000);
    for (const tag of tags) assert.deepEqual(lan.cameOut(tag), NOWHERE);
    const observed = await policy.observe();
    const counted = (vmId: number) =>
      (observed.dropped.get(vmId)?.frames ?? 0) - (before.dropped.get(vmId)?.frames ?? 0);
    assert.deepEqual([counted(BRIDGED.vmId), counted(DHCP.vmId), counted(PEER.vmId)], [counts.bridged, counts.dhcp, 0]);
    const strangers = observed.droppedWithoutEntry.frames - before.droppedWithoutEntry.frames;
    assert.equal(strangers, counts.stranger);
  });

  test(`with the rules on, what a guest may send arrives, and the bridge learns who sent it: ${way}`, async (t) => {
    await policy.put(ENTRIES);
    const lan = await Lan.open(t, through);
    const before = (await policy.dropped()).get(BRIDGED.vmId);
    for (const frame of LEGITIMATE) await lan.arrived(lan.post(frame), frame.name);
    assert.deepEqual(learnedMacs(), [BRIDGED.mac, DHCP.mac]);
    assert.deepEqual((await policy.dropped()).get(BRIDGED.vmId), before);
  });

  test(`what comes out has its checksum, and is cut into segments, each with the guest's own addresses: ${way}`, async (t) => {
    await policy.put(ENTRIES);
    const lan = await Lan.open(t, through);
    const [first, large] = ["UDP whose checksum the host fills in", "TCP that the host cuts into segments"].map(
      (name) => LEGITIMATE.find((frame) => frame.name === name),
    );
    assert.ok(first !== undefined && large !== undefined);
    const udp = lan.post(first);
    await lan.arrived(udp, first.name);
    assert.notEqual(lan.atOutside(udp)[0]?.readUInt16BE(40), 0);
    await lan.arrived(lan.post(large), large.name);
    const frames = lan.atOutside(Buffer.alloc(200));
    assert.deepEqual(
      frames.map(({ length }) => length <= 1454),
      [true, true, true, true],
    );
    for (const frame of frames) assert.equal(frame.subarray(26, 30).join("."), BRIDGED.address);
  });
}

/** Frames that were sent by the guard's link: counted when they come to it, before the write of the frame is over. */
async function goneByLink(): Promise<number> {
  const index = (await netlink.links.get(GUARD_LINK))?.index;
  const frames = (await netlink.links.counters()).get(index ?? 0)?.rxPackets;
  assert.ok(frames !== undefined);
  return frames;
}

test("the link is for frames of which something is asked, but for what an honest guest's card asks: those are spared it", async (t) => {
  await policy.put(ENTRIES);
  const lan = await Lan.open(t);
  assert.equal(await guard.slowReason(), undefined);
  const byLink: string[] = [];
  const frames = [...LEGITIMATE, ...FORGERIES, ...UNSOUND];
  for (const frame of frames) {
    if (frame.uncounted === true) continue;
    const before = await goneByLink();
    lan.post(frame);
    await lan.settle([FENCE]);
    if ((await goneByLink()) !== before) byLink.push(frame.name);
  }
  const asked = frames.filter(({ header }) => header !== undefined).map(({ name }) => name);
  const sound = ["UDP whose checksum the host fills in", "TCP that the host cuts into segments"];
  assert.deepEqual(
    byLink,
    asked.filter((name) => !sound.includes(name)),
  );
});

test("a segment forgery comes to nothing: what arrives is the sender's own, and what a DHCP client asks is for itself", async (t) => {
  await policy.put(ENTRIES);
  for (const [way, through] of GUARDS) {
    await t.test(way, async (t2) => {
      const lan = await Lan.open(t2, through);
      for (const forgery of SEGMENT_FORGERIES) {
        const tag = Buffer.from("a segment forgery;");
        const frames = await lan.outcome(forgery, finished(forgery, forgery.frame(tag)));
        const guest = forgery.from === "dhcp" ? DHCP : BRIDGED;
        for (const frame of frames.filter((text) => text !== "outside").map((text) => Buffer.from(text, "hex"))) {
          assert.deepEqual(frame.subarray(6, 12).toString("hex"), guest.mac.replaceAll(":", ""), forgery.name);
          const sources = forgery.from === "dhcp" ? ["0.0.0.0", guest.address] : [guest.address];
          assert.ok(sources.includes(frame.subarray(26, 30).join(".")), forgery.name);
          assert.ok(!frame.includes(Buffer.from(PEER.mac.replaceAll(":", ""), "hex")), forgery.name);
        }
      }
      assert.deepEqual(learnedMacs(), [BRIDGED.mac, DHCP.mac]);
    });
  }
});

test("whatever a guest asks for, the same comes out byte for byte whether sound frames are spared the link or not", async (t) => {
  await policy.put(ENTRIES);
  const { cases, seed } = anyFrames(400);
  const outcomes: (readonly string[])[][] = [];
  for (const [way, through] of GUARDS) {
    await t.test(way, async (t2) => {
      const lan = await Lan.open(t2, through);
      const list: (readonly string[])[] = [];
      for (const { frame, header } of cases) list.push(await lan.outcome({ from: "bridged", header }, frame));
      outcomes.push(list);
    });
  }
  const [spared, slow] = outcomes;
  assert.ok(spared !== undefined && slow !== undefined);
  const came = slow.filter((list) => list.length > 1).length;
  assert.ok(came >= cases.length / 10, `seed ${seed}: only ${came} frames have come out`);
  for (const [index, { frame, header }] of cases.entries()) {
    const text = `seed ${seed}, case ${index}: ${header.toString("hex")} ${frame.subarray(0, 80).toString("hex")}`;
    assert.deepEqual(spared[index], slow[index], text);
  }
});

test("without the guard, LLDP and BPDUs teach a bridge in spite of the rules; with it, they don't", async (t) => {
  await policy.put(ENTRIES);
  const lldp = FORGERIES.find(({ name }) => name === "LLDP from a foreign MAC");
  assert.ok(lldp?.teaches !== undefined);
  for (const guarded of [false, true]) {
    await t.test(guarded ? "with" : "without", async (t2) => {
      const lan = await Lan.open(t2, guarded ? guard : "nothing");
      // Spanning tree leaves ports that forward already as they are.
      ip("link", "set", BRIDGE, "type", "bridge", "stp_state", "1");
      await lan.send(lldp);
      await lan.send({ name: "a BPDU", from: "bridged", frame: foreignBpdu });
      const foreign = learnedMacs().filter((mac) => mac !== BRIDGED.mac);
      assert.equal(foreign.includes(lldp.teaches ?? ""), !guarded);
      assert.equal(foreign.length, guarded ? 0 : 2);
    });
  }
});

test("a guard that somebody damaged comes to light, passes nothing that its link is for while that is down, and is put right with its taps bound", async (t) => {
  await policy.put(ENTRIES);
  const lan = await Lan.open(t);
  const index = Number(ipJson("link", "show", "dev", BRIDGED.tap)[0]?.["ifindex"]);
  const state = async () => {
    const { whole, bound } = await guard.observe();
    return [whole, bound.has(index)];
  };
  assert.deepEqual(await state(), [true, true]);
  const block = ["block", "1987013729"];
  for (const [damage, bound] of [
    [() => setChecksumOffload(GUARD_LINK, true), true],
    [() => ip("link", "set", GUARD_LINK, "down"), true],
    [() => ip("link", "delete", GUARD_LINK), true],
    [() => execFileSync("tc", ["filter", "delete", ...block, "prio", "2"]), true],
    [() => execFileSync("tc", ["filter", "delete", ...block, "prio", "3"]), true],
    [() => execFileSync("tc", ["filter", "add", ...block, "prio", "9", "u32", "match", "u32", "0", "0"]), true],
    [() => execFileSync("tc", ["qdisc", "delete", "dev", BRIDGED.tap, "ingress"]), false],
  ] as const) {
    await damage();
    const [whole, isBound] = await state();
    assert.equal(isBound, bound, String(damage));
    if (bound) assert.equal(whole, false, String(damage));
    await guard.bind(index);
    assert.deepEqual(await state(), [true, true], String(damage));
    assert.equal(await hasChecksumOffload(GUARD_LINK), false);
    await lan.settle();
  }
  ip("link", "set", GUARD_LINK, "alias", "mine");
  await assert.rejects(guard.bind(index), { code: "exists" });
  ip("link", "set", GUARD_LINK, "alias", GUARD_ALIAS);
  ip("link", "set", GUARD_LINK, "down");
  assert.ok(FENCE_BY_LINK !== undefined);
  const lost = lan.post(FENCE_BY_LINK);
  await guard.bind(index);
  await lan.settle();
  assert.deepEqual(lan.cameOut(lost), NOWHERE);
});

test("a guard without the program, and one with it, are each put right by whoever finds the other", async (t) => {
  await policy.put(ENTRIES);
  const lan = await Lan.open(t, slowGuard);
  const index = Number(ipJson("link", "show", "dev", BRIDGED.tap)[0]?.["ifindex"]);
  assert.match((await slowGuard.slowReason())?.message ?? "", /no programs/);
  const seen = async () => [(await guard.observe()).whole, (await slowGuard.observe()).whole];
  assert.deepEqual(await seen(), [false, true]);
  await guard.bind(index);
  assert.deepEqual(await seen(), [true, false]);
  await slowGuard.bind(index);
  assert.deepEqual(await seen(), [false, true]);
  await lan.settle();
});

test("an entry changes while its tap is up, and a tap whose entry is removed passes nothing", async (t) => {
  await policy.put(ENTRIES);
  const lan = await Lan.open(t);
  const [good] = LEGITIMATE;
  const [entry] = ENTRIES;
  assert.ok(good !== undefined && entry !== undefined);
  const passes = async () => (await lan.send(good, [FENCE_FROM_DHCP])).peer;
  assert.equal(await passes(), true);
  await policy.put([{ ...entry, addresses: ["10.77.0.200"] }]);
  assert.equal(await passes(), false);
  await policy.put([{ ...entry, addresses: ["10.77.0.200", BRIDGED.address] }]);
  assert.equal(await passes(), true);
  await policy.remove([entry.vmId]);
  assert.equal(await passes(), false);
  await policy.remove([entry.vmId]);
  await policy.put([entry]);
  assert.equal(await passes(), true);
});

test("a DHCP guest can ask for a lease and nothing else, until its lease is known", async (t) => {
  await policy.put([entryOf(BRIDGED, "bridged"), { ...entryOf(DHCP, "dhcp"), addresses: [] }]);
  const lan = await Lan.open(t);
  const arrived = async () => {
    const list: boolean[] = [];
    for (const frame of LEGITIMATE) if (frame.from === "dhcp") list.push((await lan.send(frame)).outside);
    return list;
  };
  assert.deepEqual(await arrived(), [true, false, false]);
  await policy.put([{ ...entryOf(DHCP, "dhcp"), leaseSeconds: 60 }]);
  assert.deepEqual(await arrived(), [true, true, true]);
});

test("the operator's word lets everything pass from one tap, and from no other", async (t) => {
  await policy.put([{ ...entryOf(BRIDGED, "bridged"), antiSpoof: false }, entryOf(DHCP, "dhcp")]);
  const lan = await Lan.open(t, "nothing");
  for (const forgery of FORGERIES) {
    if (forgery.header !== undefined) continue;
    const passes = forgery.from === "bridged" && forgery.linkLocal !== true;
    assert.deepEqual(await lan.send(forgery), passes ? EVERYWHERE : NOWHERE, forgery.name);
  }
});

test("an entry holds a tap that is made after it, and one that takes a deleted tap's name", async (t) => {
  await policy.put(ENTRIES);
  const [foreign] = FORGERIES;
  assert.ok(foreign !== undefined);
  for (const time of ["first", "second"]) {
    await t.test(`the ${time} tap`, async (t2) => {
      const lan = await Lan.open(t2);
      assert.deepEqual(await lan.send(foreign), NOWHERE);
    });
  }
});

test("the guard's link goes when no tap is bound, and stays as long as one is", async (t) => {
  await t.test("while one is", async (t2) => {
    await Lan.open(t2);
    await guard.release();
    assert.equal((await guard.observe()).whole, true);
  });
  await guard.release();
  assert.equal(await netlink.links.get(GUARD_LINK), undefined);
});
