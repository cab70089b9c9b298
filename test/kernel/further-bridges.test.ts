/** More taps than a bridge has ports: they are one network all the same. br_netfilter is on here, as it is beside Docker, and FORWARD drops. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import test, { after, before } from "node:test";
import { bridgeMac, runSetup, undoSetup } from "@volant/host";
import type { BridgeManager } from "../../packages/volantd/src/network/bridge-manager.ts";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { eventually, GATEWAY, Guest, ipText, masterOf, openManager, PATIENCE_MS } from "./further-lan.ts";
import { arp, BROADCAST, ethernet, ipv4, udp } from "./policy-frames.ts";
import { networkState, run, type Scratch, scratchSetup } from "./setup-state.ts";

enterOwnNamespace(import.meta.url);

const OUTSIDE = "198.51.100.2";
const OUTSIDE_MAC = "02:00:5e:00:53:02";
const HOST_OUTSIDE = "198.51.100.1";
const guests = Array.from({ length: 8 }, (_none, index) => new Guest(index + 1));
const [first, second, third, , , sixth, , eighth] = guests as [Guest, Guest, Guest, Guest, Guest, Guest, Guest, Guest];
let scratch: Scratch;
let manager: BridgeManager;
let untouched: Record<string, string>;
let gatewayMac: string;

before(async () => {
  assert.equal(run("sysctl", "-n", "net.bridge.bridge-nf-call-iptables").trim(), "1");
  untouched = networkState();
  scratch = scratchSetup({ subnet: "10.77.0.0/24", hostIp: GATEWAY });
  await runSetup(scratch.host, scratch.settings);
  run("iptables", "-P", "FORWARD", "DROP");
  gatewayMac = bridgeMac(scratch.settings);
  manager = await openManager(scratch, { emptyForMs: 0 });
  await manager.observe();
});

after(async () => {
  for (const guest of guests) guest.stop();
  await manager.close();
  scratch[Symbol.dispose]();
});

const links = (): string =>
  ipJson("link", "show")
    .map(({ ifname, master }) => `${String(ifname)}@${String(master)}`)
    .join(" ");
const there = (name: string): boolean => ipJson("link", "show").some(({ ifname }) => ifname === name);

test("taps that come at once fill the managed bridge, then further ones, the lowest first, and none gets more than it has ports", async () => {
  await Promise.all(guests.slice(0, 3).map((guest) => guest.start(manager)));
  for (const guest of guests.slice(3, 7)) await guest.start(manager);
  await eighth.start(manager, false);
  assert.deepEqual(
    guests.map(({ tap }) => masterOf(tap)),
    ["vbr0", "vbr0", "vbr0-1", "vbr0-1", "vbr0-1", "vbr0-2", "vbr0-2", "vbr0-2"],
  );
  const { taps, network, otherBridges } = await manager.observe();
  assert.deepEqual([...new Set(taps.map(({ bridge }) => bridge))], ["vbr0"], "to all others it is one network");
  assert.deepEqual([...otherBridges], []);
  assert.deepEqual(network, { managed: true, bridge: "up", bridgeName: "vbr0", addressed: true });
  await assert.rejects(new Guest(9).start(manager), {
    code: "not_ready",
    message: /vbr0: all its further bridges are full/,
  });
  await manager.removePolicy(9);
});

test("guests of all bridges reach each other, by broadcast, by address and by multicast, also with IPv6", async () => {
  for (const guest of [first, third, sixth]) {
    const tag = guest.tag();
    guest.send(guest.datagram({ address: "10.77.0.255" }, tag));
    for (const other of guests.filter((each) => each !== guest)) {
      await other.until((frame) => frame.includes(tag), `broadcast of ${guest.tap}`);
    }
  }
  await first.reaches(third, sixth);
  await third.reaches(first, sixth);
  await sixth.reaches(first, third, eighth);
  const group = { mac: "01:00:5e:00:00:fb", address: "224.0.0.251" };
  const tag = third.tag();
  third.send(third.datagram(group, tag));
  for (const other of [first, sixth]) await other.until((frame) => frame.includes(tag), "multicast");
  // A neighbour solicitation's group (RFC 4861); only a guest that is held to nothing may speak IPv6.
  const mark = eighth.tag();
  const solicitation = Buffer.concat([Buffer.from("6000000000003aff".padEnd(80, "0"), "hex"), mark]);
  solicitation.writeUInt16BE(mark.length, 4);
  eighth.send(ethernet(eighth.mac, 0x86dd, solicitation, "33:33:ff:00:00:01"));
  for (const other of [first, third]) await other.until((frame) => frame.includes(mark), "IPv6 multicast");
});

test("each guest finds its gateway at one hardware address, the managed bridge's", async () => {
  for (const guest of [first, third, sixth]) {
    assert.deepEqual(await guest.askFor(GATEWAY), [gatewayMac]);
    // Frames keep their order on the way, so a second answer would be here before those to a second question.
    assert.deepEqual(await guest.askFor(GATEWAY), [gatewayMac]);
  }
});

test("the host is not reached by a further bridge's own link, whoever knows its hardware address", async () => {
  using socket = Object.assign(createSocket("udp4"), {
    [Symbol.dispose](): void {
      socket.close();
    },
  });
  socket.bind(4001, GATEWAY);
  await once(socket, "listening");
  const heard: string[] = [];
  socket.on("message", (message) => heard.push(message.toString()));
  const own = String(ipJson("link", "show", "dev", "vbr0-1")[0]?.["address"]);
  third.send(third.datagram({ mac: own, address: GATEWAY }, Buffer.from("by the side")));
  third.send(third.datagram({ mac: gatewayMac, address: GATEWAY }, Buffer.from("by the gateway")));
  await eventually(
    "the host hears the guest",
    () => heard.length > 0,
    () => "nothing",
  );
  assert.deepEqual(heard, ["by the gateway"]);
});

test("the host reaches guests of further bridges by their neighbour entries", async () => {
  using socket = Object.assign(createSocket("udp4"), {
    [Symbol.dispose](): void {
      socket.close();
    },
  });
  for (const guest of [third, sixth]) {
    await manager.setNeighbour({ address: 0x0a4d0000 + 10 + guest.vmId, mac: guest.mac });
    const tag = guest.tag();
    socket.send(tag, 4001, guest.address);
    await guest.until((frame) => frame.includes(tag), "datagram of the host");
  }
});

test("with br_netfilter and a FORWARD chain that drops, guests of each bridge go out under the host's address, and answers find them", async () => {
  ip("tuntap", "add", "outside0", "mode", "tap", "vnet_hdr");
  ip("address", "add", `${HOST_OUTSIDE}/24`, "dev", "outside0");
  ip("link", "set", "outside0", "up");
  ip("neighbour", "add", OUTSIDE, "lladdr", OUTSIDE_MAC, "dev", "outside0");
  const outside = new Outside();
  try {
    const isUp = (): boolean => ipJson("link", "show", "dev", "outside0")[0]?.["operstate"] === "UP";
    await eventually("the link to the outside has a carrier", isUp, () => ip("link", "show", "dev", "outside0"));
    for (const guest of [first, third, sixth]) {
      const tag = guest.tag();
      guest.send(guest.datagram({ mac: gatewayMac, address: OUTSIDE, port: 53 }, tag));
      const asked = await outside.until(tag, guest);
      assert.equal(ipText(asked, 26), HOST_OUTSIDE, `${guest.tap} is masqueraded`);
      const answer = guest.tag();
      outside.answer(asked, answer);
      const frames = await guest.until((frame) => frame.includes(answer), "answer from outside");
      const [got] = frames.filter((frame) => frame.includes(answer));
      assert.ok(got !== undefined);
      assert.deepEqual([ipText(got, 26), ipText(got, 30)], [OUTSIDE, guest.address]);
    }
  } finally {
    outside.close();
    ip("link", "delete", "outside0");
  }
});

/** Whoever is outside, at the far end of a link of the host's. */
class Outside {
  readonly #guest = new Guest(99);

  constructor() {
    this.#guest.hold("outside0");
  }

  async until(tag: Buffer, from: Guest): Promise<Buffer> {
    const frames = await this.#guest.until((frame) => frame.includes(tag), `datagram of ${from.tap}`);
    const frame = frames.find((each) => each.includes(tag));
    assert.ok(frame !== undefined);
    return frame;
  }

  answer(asked: Buffer, payload: Buffer): void {
    const [sourcePort, port] = [asked.readUInt16BE(34), asked.readUInt16BE(36)];
    const packet = ipv4({ source: OUTSIDE, destination: ipText(asked, 26) }, udp(port, sourcePort, payload));
    const mac = [...asked.subarray(6, 12)].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
    this.#guest.send(ethernet(OUTSIDE_MAC, 0x0800, packet, mac));
  }

  close(): void {
    this.#guest.stop();
  }
}

test("a guest on one bridge can't take the name of one on another: not its hardware address, nor its IPv4 address", async () => {
  const claims = [
    third
      .datagram({ address: first.address }, Buffer.from("forged by mac"))
      .fill(Buffer.from(sixth.mac.replaceAll(":", ""), "hex"), 6, 12),
    ethernet(
      third.mac,
      0x0800,
      ipv4({ source: sixth.address, destination: first.address }, udp(1, 2, Buffer.from("forged by address"))),
    ),
    ethernet(
      third.mac,
      0x0806,
      arp(
        { operation: 2, senderMac: third.mac, senderIp: GATEWAY, targetIp: first.address },
        Buffer.from("forged by arp"),
      ),
      BROADCAST,
    ),
  ];
  for (const guest of guests) guest.received();
  for (const claim of claims) third.send(claim);
  for (const other of [first, second, sixth]) {
    const tag = third.tag();
    third.send(third.datagram(other, tag));
    const frames = await other.until((frame) => frame.includes(tag), "honest datagram");
    assert.equal(frames.filter((frame) => frame.includes("forged by")).length, 0, other.tap);
  }
  const learned = run("bridge", "fdb", "show", "br", "vbr0-1");
  assert.doesNotMatch(learned, new RegExp(`^${sixth.mac} dev ${third.tap}`, "m"));
});

/** Does harm, waits until the manager was told, and puts right what a look then shows to be wrong. */
async function repairAfter(harm: () => void): Promise<readonly string[]> {
  const controller = new AbortController();
  const { promise: told, resolve } = Promise.withResolvers<void>();
  const watching = manager.watch((vmId) => vmId === "all" && resolve(), controller.signal);
  const late = setTimeout(() => controller.abort(), PATIENCE_MS);
  try {
    harm();
    await Promise.race([told, watching.then(() => assert.fail("nobody told of it"))]);
  } finally {
    clearTimeout(late);
    controller.abort();
    await watching;
  }
  await manager.observe();
  const restored = await manager.restoreHost();
  for (const guest of guests.filter(({ tap }) => there(tap))) {
    const tap = await guest.seen(manager);
    if (tap.bridge !== "vbr0" || !tap.up) await manager.repairTap(tap, undefined, guest !== eighth);
  }
  return restored;
}

const HARMS: readonly (readonly [what: string, harm: () => void])[] = [
  ["a trunk is deleted", () => void ip("link", "delete", "vbr0-1n")],
  ["a trunk's end is set down", () => void ip("link", "set", "vbr0-1f", "down")],
  ["a trunk is taken off the managed bridge", () => void ip("link", "set", "vbr0-2n", "nomaster")],
  ["a further bridge is set down", () => void ip("link", "set", "vbr0-2", "down")],
  ["a further bridge is deleted", () => void ip("link", "delete", "vbr0-1")],
  ["the managed bridge is deleted", () => void ip("link", "delete", "vbr0")],
];

for (const [what, harm] of HARMS) {
  test(`${what}: it is told, put right, and guests reach each other and their gateway again`, async () => {
    const restored = await repairAfter(harm);
    if (what !== "a further bridge is deleted") assert.notDeepEqual(restored, []);
    const { network } = await manager.observe();
    assert.deepEqual(network, { managed: true, bridge: "up", bridgeName: "vbr0", addressed: true });
    await first.reaches(third, sixth);
    await third.reaches(first, sixth);
    await sixth.reaches(first, third);
    for (const guest of [first, third, sixth]) assert.deepEqual(await guest.askFor(GATEWAY), [gatewayMac]);
    const rules = run("iptables-save");
    for (const name of ["vbr0-1", "vbr0-2"])
      assert.match(rules, new RegExp(`-A PREROUTING -i ${name} .* -j CT --notrack`));
  });
}

test("a further bridge that is not deaf any more is put right: the host would answer for itself twice", async () => {
  run("tc", "qdisc", "delete", "dev", "vbr0-1", "ingress");
  const onFirst = guests.find(({ tap }) => masterOf(tap) === "vbr0-1");
  assert.ok(onFirst !== undefined);
  await onFirst.askFor(GATEWAY);
  const answers = await onFirst.askFor(GATEWAY);
  assert.ok(
    answers.some((mac) => mac !== gatewayMac),
    "this test can see it",
  );
  const { network } = await manager.observe();
  assert.ok(network.managed && network.furtherBroken === true);
  await manager.restoreHost();
  assert.deepEqual(await onFirst.askFor(GATEWAY), [gatewayMac]);
  assert.deepEqual(await onFirst.askFor(GATEWAY), [gatewayMac]);
});

test("another volantd of this installation finds all of it, also what was not marked yet; one of another installation takes none of it", async () => {
  const before = links();
  ip("link", "set", "vbr0-1", "alias", "");
  ip("link", "set", "vbr0-2f", "alias", "");
  const next = await openManager(scratch);
  const view = await next.observe();
  assert.deepEqual(
    view.taps.map(({ vmId, bridge }) => [vmId, bridge]).toSorted(),
    guests.map(({ vmId }) => [vmId, "vbr0"]).toSorted(),
  );
  assert.equal((await next.restoreHost()).length, 2);
  assert.deepEqual((await next.observe()).network, {
    managed: true,
    bridge: "up",
    bridgeName: "vbr0",
    addressed: true,
  });
  assert.equal(links(), before);
  for (const guest of guests) await next.repairTap(await guest.seen(next), undefined, guest !== eighth);
  assert.equal(links(), before, "a tap that has its place keeps it");
  await next.close();

  const other = await openManager(scratch, { installation: "99999999", emptyForMs: 0 });
  await other.observe();
  await other.createTap({ vmId: 1, name: "vttap-other", uid: 0 });
  assert.equal(masterOf("vttap-other"), "vbr0-3", "its own, since ours have the names before it");
  await other.restoreHost();
  await manager.restoreHost();
  await first.reaches(third, sixth);
  await other.deleteTap((await other.observe()).taps[0] ?? assert.fail("its tap is seen"));
  const leave = async (): Promise<boolean> => {
    await other.observe();
    return !there("vbr0-3") && !there("vbr0-3n");
  };
  await eventually("the other's further bridge is gone", leave, links);
  await other.close();
  assert.equal((await manager.observe()).taps.length, guests.length);
});

test("an undo refuses while further bridges have taps, and names them", async () => {
  await assert.rejects(undoSetup(scratch.host), {
    code: "in_use",
    message: /(?=.*vbr0-1 still has ports vttap-)(?=.*vbr0-2 still has)/,
  });
});

test("a further bridge goes once it is empty, its trunk with it, and the others stay", async () => {
  for (const guest of guests.filter(({ tap }) => masterOf(tap) === "vbr0-2")) {
    guest.stop();
    await manager.deleteTap(await guest.seen(manager));
  }
  await eventually(
    "vbr0-2 is gone",
    async () => {
      await manager.observe();
      return !there("vbr0-2") && !there("vbr0-2n") && !there("vbr0-2f");
    },
    links,
  );
  assert.ok(there("vbr0-1") && there("vbr0-1n"));
});

test("a place that is free again is filled first, and a bridge that went is made again", async () => {
  const gone = guests.filter(({ tap }) => !there(tap));
  await Promise.all(gone.map((guest) => guest.start(manager)));
  assert.deepEqual(new Set(gone.map(({ tap }) => masterOf(tap))), new Set(["vbr0-2"]));
  const [onManaged] = guests.filter(({ tap }) => masterOf(tap) === "vbr0");
  assert.ok(onManaged !== undefined);
  onManaged.stop();
  await manager.deleteTap(await onManaged.seen(manager));
  await manager.observe();
  await onManaged.start(manager);
  assert.equal(masterOf(onManaged.tap), "vbr0");
});

test("an undo removes further bridges that are left, and leaves no trace", async () => {
  for (const guest of guests) {
    guest.stop();
    await manager.removePolicy(guest.vmId);
  }
  const { taps } = await manager.observe();
  // Nothing looks at the host any more, so that further bridges stay.
  await Promise.all(taps.map((tap) => manager.deleteTap(tap)));
  assert.ok(there("vbr0-1"));
  run("iptables", "-P", "FORWARD", "ACCEPT");
  const { steps } = await undoSetup(scratch.host);
  assert.ok(steps.some(({ title }) => title === "further bridge 1 of vbr0"));
  assert.deepEqual(networkState(), untouched);
});
