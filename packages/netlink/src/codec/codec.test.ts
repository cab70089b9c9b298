import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import fc from "fast-check";
import { NetlinkError } from "../errors.ts";
import { eventOf } from "../events.ts";
import {
  type Address,
  type AddressFlag,
  broadcastAddress,
  decodeAddress,
  RTM_NEWADDR,
  writeAddress,
} from "./address.ts";
import { AttributeCursor, NLA_F_NESTED } from "./attributes.ts";
import { formatIp, formatMac, parseIp, parseMac } from "./ip-text.ts";
import { decodeLink, RTM_NEWLINK, writeBridgePort, writeLink, writeLinkInfo } from "./link.ts";
import { writeBridgeOptions, writeKind, writeTunInfo, writeVxlanOptions } from "./link-kinds.ts";
import { decodeAcknowledgement, decodeDone, decodeMessages, encodeMessage, type NetlinkMessage } from "./message.ts";
import { decodeNeighbour, type Neighbour, type NeighbourState, RTM_NEWNEIGH, writeNeighbour } from "./neighbour.ts";
import { decodeRoute, type Route, RTM_NEWROUTE, writeRoute } from "./route.ts";
import { decodeStats, writeLinkCounters } from "./stats.ts";
import { MessageWriter } from "./writer.ts";

/** Bodies that a Linux 6.18 kernel sent, of links, addresses, routes, neighbours, counters and acknowledgements. */
const CAPTURED = (
  JSON.parse(readFileSync(new URL("captured-messages.json", import.meta.url), "utf8")) as {
    type: number;
    flags: number;
    body: string;
  }[]
).map(({ type, flags, body }) => ({ type, flags, body: Buffer.from(body, "base64") }));

const captured = (type: number) => CAPTURED.filter((message) => message.type === type).map(({ body }) => body);

const written = (write: (writer: MessageWriter) => void): Buffer => {
  const writer = new MessageWriter(16);
  write(writer);
  return writer.finish();
};

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const index = fc.integer({ min: 1, max: 0x7fff_ffff });
const mac = fc.uint8Array({ minLength: 6, maxLength: 6 }).map((bytes) => formatMac(Buffer.from(bytes)));
const ipv4 = fc.uint8Array({ minLength: 4, maxLength: 4 }).map((bytes) => formatIp(Buffer.from(bytes)));
const ipv6 = fc
  .array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff })), { minLength: 8, maxLength: 8 })
  .map((words) => formatIp(Buffer.from(words.flatMap((word) => [word >> 8, word & 0xff]))));
const name = fc.stringMatching(/^[a-z0-9-]{1,15}$/);
const optional = <Value>(value: fc.Arbitrary<Value>) => fc.option(value, { nil: undefined });
const present = <Type extends object>(object: Type): Type =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as Type;

test("IP addresses survive bytes → text → bytes, and text is what inet_ntop writes", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc
      .array(fc.oneof(fc.constant(0), fc.nat(255)), { minLength: 16, maxLength: 16 })
      .map((all) => Uint8Array.from(all)),
  );
  fc.assert(
    fc.property(bytes, (address) => {
      assert.deepEqual(parseIp(formatIp(Buffer.from(address))), Buffer.from(address));
    }),
  );
  const texts = [
    "::",
    "::1",
    "2001:db8::1",
    "1:0:0:2::3",
    "::ffff:192.0.2.1",
    "1:2:3:4:5:6:7:8",
    "fe80::1:0:0:1",
    "1::",
  ];
  for (const text of texts) assert.equal(formatIp(parseIp(text) ?? Buffer.alloc(0)), text);
  for (const text of ["", "1.2.3", "1.2.3.256", "fe80::1%lo", "g::", "1::2::3", " ::1"])
    assert.equal(parseIp(text), undefined);
});

test("MAC addresses survive bytes → text → bytes, and nothing else is taken for one", () => {
  fc.assert(fc.property(mac, (text) => assert.equal(formatMac(parseMac(text) ?? Buffer.alloc(0)), text)));
  for (const text of ["", "02:00:00:00:00", "02-00-00-00-00-01", "02:00:00:00:00:01:02", "0g:00:00:00:00:00"]) {
    assert.equal(parseMac(text), undefined);
  }
});

test("messages survive encoding and splitting, in any number and with any body", () => {
  const header = fc.record({ type: fc.nat(0xffff), flags: fc.nat(0xffff), sequence: u32, portId: u32 });
  const message = fc.tuple(header, fc.uint8Array({ maxLength: 70 }));
  fc.assert(
    fc.property(fc.array(message, { maxLength: 5 }), (messages) => {
      const datagram = Buffer.concat(messages.map(([head, body]) => encodeMessage(head, (writer) => writer.raw(body))));
      const expected = messages.map(([head, body]) => ({ ...head, body: Buffer.from(body) }));
      assert.deepEqual(decodeMessages(datagram), expected);
    }),
  );
});

test("attributes of every length and depth are read back as they were written", () => {
  const attribute = fc.tuple(fc.integer({ min: 0, max: 0x3fff }), fc.uint8Array({ maxLength: 40 }));
  fc.assert(
    fc.property(fc.array(attribute), fc.array(attribute), (outer, inner) => {
      const bytes = written((writer) => {
        for (const [type, value] of outer) writer.bytesAttribute(type, value);
        writer.attribute(7 | NLA_F_NESTED, () => {
          for (const [type, value] of inner) writer.bytesAttribute(type, value);
        });
      });
      const read = (cursor: AttributeCursor) => {
        const found: [number, Uint8Array][] = [];
        while (cursor.next()) found.push([cursor.type, Uint8Array.from(cursor.bytes())]);
        return found;
      };
      const cursor = new AttributeCursor(bytes, 0, bytes.length);
      for (const [type, value] of outer) {
        assert.equal(cursor.next(), true);
        assert.deepEqual([cursor.type, Uint8Array.from(cursor.bytes())], [type, value]);
      }
      assert.equal(cursor.next(), true);
      assert.deepEqual(read(cursor.nested()), inner);
      assert.equal(cursor.next(), false);
    }),
  );
});

test("a link's settable attributes survive encoding", () => {
  const attributes = fc.record({
    name,
    mac: optional(mac),
    mtu: optional(u32),
    up: optional(fc.boolean()),
    master: optional(index),
    alias: optional(
      fc.string({ minLength: 1, maxLength: 60, unit: "grapheme" }).filter((text) => !text.includes("\0")),
    ),
    group: optional(u32),
    txQueueLength: optional(u32),
    parent: optional(index),
    carrier: optional(fc.boolean()),
    addressGeneration: optional(fc.constantFrom("eui64", "none", "stable-privacy", "random")),
  });
  fc.assert(
    fc.property(index, attributes, (at, { up, ...rest }) => {
      const { link, fromBridge } = decodeLink(written((writer) => writeLink(writer, at, { up, ...rest })));
      assert.equal(fromBridge, false);
      assert.deepEqual(link.flags.up, up ?? false);
      const expected = { ...present(rest), mtu: rest.mtu ?? 0, group: rest.group ?? 0 };
      assert.deepEqual(link, { index: at, flags: link.flags, operState: "unknown", alternativeNames: [], ...expected });
    }),
  );
});

test("what a kind says about itself survives encoding: bridge, vxlan, tap, and a bridge's port", () => {
  const flag = optional(fc.boolean());
  const u16 = optional(fc.nat(0xffff));
  const ticks = optional(fc.nat(1_000_000).map((value) => value * 10));
  const bridge = fc.record({
    stp: flag,
    forwardDelayMs: ticks,
    ageingTimeMs: ticks,
    priority: u16,
    vlanFiltering: flag,
    vlanDefaultPvid: u16,
    groupForwardMask: u16,
    multicastSnooping: flag,
    nfCallIptables: flag,
  });
  const vxlan = fc.record({
    vni: fc.nat(0xff_ffff),
    port: u16,
    ttl: optional(fc.nat(255)),
    learning: flag,
    underlay: optional(index),
    remote: optional(fc.oneof(ipv4, ipv6)),
    local: optional(fc.oneof(ipv4, ipv6)),
  });
  const tap = fc.record({
    owner: optional(u32),
    group: optional(u32),
    vnetHdr: flag,
    persist: flag,
    queues: optional(u32),
  });
  const port = fc.record({ priority: u16, cost: optional(u32), isolated: flag, learning: flag, hairpin: flag });
  const kindOf = (kind: string, write: (writer: MessageWriter) => void) =>
    decodeLink(
      written((writer) => {
        writeLink(writer, 1, { name: "x" });
        writeLinkInfo(writer, () => writeKind(writer, kind, () => write(writer)));
      }),
    ).link;
  fc.assert(
    fc.property(bridge, vxlan, tap, port, (bridgeOptions, vxlanOptions, tapInfo, portOptions) => {
      const [b, v, t, p] = [
        present(bridgeOptions),
        present(vxlanOptions),
        present(tapInfo),
        present(portOptions),
      ] as never[];
      assert.deepEqual(kindOf("bridge", (writer) => writeBridgeOptions(writer, b as never)).bridge, b);
      assert.deepEqual(kindOf("vxlan", (writer) => writeVxlanOptions(writer, v as never)).vxlan, v);
      assert.deepEqual(kindOf("tun", (writer) => writeTunInfo(writer, "tap", t as never)).tap, t);
      const decoded = decodeLink(written((writer) => writeBridgePort(writer, 3, p as never)));
      assert.equal(decoded.fromBridge, true);
      assert.deepEqual(decoded.link.bridgePort, p);
    }),
  );
});

test("addresses survive object → bytes → object", () => {
  const family = fc.constantFrom("inet" as const, "inet6" as const);
  const flags = fc.subarray<AddressFlag>(["secondary", "noDuplicateDetection", "permanent", "noPrefixRoute"]);
  const arbitrary = family.chain((kind) => {
    const ip = kind === "inet" ? ipv4 : ipv6;
    return fc.record({
      family: fc.constant(kind),
      link: index,
      address: ip,
      prefixLength: fc.nat(kind === "inet" ? 32 : 128),
      peer: optional(ip),
      broadcast: optional(ip),
      label: optional(name),
      scope: fc.constantFrom("global" as const, "link" as const, "host" as const, 17),
      flags,
      validSeconds: optional(fc.nat(0xffff_fffe)),
      preferredSeconds: optional(fc.nat(0xffff_fffe)),
      metric: optional(u32),
    });
  });
  fc.assert(
    fc.property(arbitrary, (generated) => {
      const address = present({
        ...generated,
        peer: generated.peer === generated.address ? undefined : generated.peer,
      });
      assert.deepEqual(decodeAddress(written((writer) => writeAddress(writer, address as Address))), address);
    }),
  );
});

test("neighbours survive object → bytes → object", () => {
  const states: NeighbourState[] = [
    "none",
    "incomplete",
    "reachable",
    "stale",
    "delay",
    "probe",
    "failed",
    "noarp",
    "permanent",
  ];
  const arbitrary = fc.constantFrom("inet" as const, "inet6" as const).chain((family) =>
    fc.record({
      family: fc.constant(family),
      link: index,
      address: family === "inet" ? ipv4 : ipv6,
      mac: optional(mac),
      state: fc.constantFrom(...states),
      flags: fc.subarray<"proxy" | "externallyLearned" | "router">(["proxy", "externallyLearned", "router"]),
    }),
  );
  fc.assert(
    fc.property(arbitrary, (generated) => {
      const neighbour = present(generated) as Neighbour;
      assert.deepEqual(decodeNeighbour(written((writer) => writeNeighbour(writer, neighbour))), neighbour);
    }),
  );
});

test("routes survive object → bytes → object", () => {
  const arbitrary = fc.constantFrom("inet" as const, "inet6" as const).chain((family) => {
    const ip = family === "inet" ? ipv4 : ipv6;
    const bits = family === "inet" ? 32 : 128;
    const weight = fc.integer({ min: 1, max: 256 });
    const hop = fc.record({ link: index, gateway: ip, weight }, { noNullPrototype: true });
    return fc.record({
      family: fc.constant(family),
      destination: fc.oneof(
        fc.constant("default"),
        fc.tuple(ip, fc.integer({ min: 1, max: bits })).map(([address, length]) => `${address}/${length}`),
      ),
      gateway: optional(fc.oneof(ipv4, ipv6)),
      link: optional(index),
      preferredSource: optional(ip),
      metric: optional(u32),
      mtu: optional(u32),
      table: fc.integer({ min: 1, max: 0xffff_ffff }),
      protocol: fc.constantFrom("kernel" as const, "boot" as const, "dhcp" as const, 99),
      scope: fc.constantFrom("global" as const, "link" as const, "host" as const),
      type: fc.constantFrom("unicast" as const, "local" as const, "blackhole" as const),
      flags: fc.subarray<"dead" | "onLink" | "linkDown">(["dead", "onLink", "linkDown"]),
      nextHops: optional(fc.array(hop, { minLength: 1, maxLength: 4 })),
    });
  });
  fc.assert(
    fc.property(arbitrary, (generated) => {
      const route = present(generated) as Route;
      assert.deepEqual(decodeRoute(written((writer) => writeRoute(writer, route))), route);
    }),
  );
});

test("bytes → object → bytes: re-encoded kernel messages decode to the same addresses, routes and neighbours", () => {
  for (const body of captured(RTM_NEWADDR)) {
    const address = decodeAddress(body);
    assert.ok(address);
    assert.deepEqual(decodeAddress(written((writer) => writeAddress(writer, address))), address);
  }
  for (const body of captured(RTM_NEWROUTE)) {
    const route = decodeRoute(body);
    assert.ok(route);
    assert.deepEqual(decodeRoute(written((writer) => writeRoute(writer, route))), route);
  }
  for (const body of captured(RTM_NEWNEIGH)) {
    const neighbour = decodeNeighbour(body);
    assert.ok(neighbour);
    assert.deepEqual(decodeNeighbour(written((writer) => writeNeighbour(writer, neighbour))), neighbour);
  }
});

test("captured links decode to what was configured when they were captured", () => {
  const links = captured(RTM_NEWLINK).map((body) => decodeLink(body));
  const find = (wanted: string) => links.find(({ link, fromBridge }) => link.name === wanted && !fromBridge)?.link;
  assert.equal(find("br0")?.alias, "a bridge");
  assert.equal(find("br0")?.mac, "02:00:00:00:00:01");
  assert.equal(find("br0")?.bridge?.bridgeId, "8000.020000000001");
  const tap = { owner: 1000, group: 100, packetInfo: false, vnetHdr: true, persist: true, multiQueue: false };
  assert.deepEqual(find("t0")?.tap, tap);
  assert.equal(find("t0")?.group, 9);
  assert.equal(find("t0")?.master, find("br0")?.index);
  assert.deepEqual(find("t0")?.alternativeNames, ["another"]);
  assert.equal(find("v0")?.kind, "veth");
  const { vni, remote, local, port, underlay } = find("x0")?.vxlan ?? {};
  assert.deepEqual([vni, remote, local, port, underlay], [42, "192.0.2.1", "192.0.2.2", 4789, find("br0")?.index]);
  assert.ok(links.some(({ fromBridge, link }) => fromBridge && link.name === "t0"));
});

test("counters survive encoding, up to 2^53", () => {
  const counter = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
  fc.assert(
    fc.property(counter, counter, index, (rxBytes, txBytes, at) => {
      const zero = Object.fromEntries(
        Object.keys(decodeStats(captured(92)[0] ?? Buffer.alloc(0)).counters ?? {}).map((key) => [key, 0]),
      );
      const counters = { ...zero, rxBytes, txBytes } as never;
      const body = written((writer) => {
        writer.u32(0).u32(at).u32(1);
        writer.attribute(1, () => writeLinkCounters(writer, counters));
      });
      assert.deepEqual(decodeStats(body), { index: at, counters });
    }),
  );
});

test("an acknowledgement gives errno and the kernel's words, with and without the request's copy", () => {
  const words = "Can not enslave a bridge to a bridge";
  for (const capped of [true, false]) {
    const copy = encodeMessage({ type: 19, flags: 5 }, (writer) => writer.raw(Buffer.alloc(capped ? 0 : 20)));
    const body = written((writer) => {
      writer.i32(-40).raw(copy);
      writer.stringAttribute(1, words).u32Attribute(2, 36);
    });
    assert.deepEqual(decodeAcknowledgement(0x200 | (capped ? 0x100 : 0), body), {
      errno: 40,
      message: words,
      offset: 36,
    });
  }
});

test("the broadcast address is the last of its network, and /31, /32 and IPv6 have none", () => {
  assert.equal(broadcastAddress("192.168.127.1", 24), "192.168.127.255");
  assert.equal(broadcastAddress("10.1.2.3", 8), "10.255.255.255");
  assert.equal(broadcastAddress("200.1.2.3", 30), "200.1.2.3");
  assert.equal(broadcastAddress("10.1.2.3", 0), "255.255.255.255");
  for (const length of [31, 32]) assert.equal(broadcastAddress("10.1.2.3", length), undefined);
  assert.equal(broadcastAddress("2001:db8::1", 64), undefined);
});

/** Runs every decoder over the bytes; each may refuse them as EBADMSG and do nothing else. */
function decodeAll(message: NetlinkMessage, datagram: Buffer): void {
  const decoders: (() => unknown)[] = [
    () => decodeMessages(datagram),
    () => eventOf(message),
    () => decodeLink(message.body),
    () => decodeAddress(message.body),
    () => decodeRoute(message.body),
    () => decodeNeighbour(message.body),
    () => decodeStats(message.body),
    () => decodeAcknowledgement(message.flags, message.body),
    () => decodeDone(message.flags, message.body),
  ];
  for (const decode of decoders) {
    try {
      decode();
    } catch (error) {
      if (!(error instanceof NetlinkError) || error.code !== "EBADMSG") throw error;
    }
  }
}

test("random bytes are decoded or refused as EBADMSG by every decoder", () => {
  fc.assert(
    fc.property(fc.nat(0xffff), fc.nat(0xffff), fc.uint8Array({ maxLength: 300 }), (type, flags, bytes) => {
      const body = Buffer.from(bytes);
      decodeAll({ type, flags, sequence: 0, portId: 0, body }, body);
    }),
    { numRuns: 2000 },
  );
});

test("kernel messages with bytes changed, cut or repeated are decoded or refused as EBADMSG by every decoder", () => {
  const change = fc.tuple(fc.nat(2000), fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 3, 4, 5, 127, 128, 255)));
  fc.assert(
    fc.property(
      fc.constantFrom(...CAPTURED),
      fc.array(change, { maxLength: 12 }),
      fc.nat(2000),
      (message, changes, cut) => {
        const body = Buffer.from(
          message.body.subarray(0, message.body.length - (cut % 5 === 0 ? cut % message.body.length : 0)),
        );
        for (const [at, value] of changes) if (body.length > 0) body[at % body.length] = value;
        const datagram = encodeMessage({ type: message.type, flags: message.flags }, (writer) => writer.raw(body));
        for (const [at, value] of changes) if (cut % 3 === 0) datagram[at % datagram.length] = value;
        decodeAll({ type: message.type, flags: message.flags, sequence: 0, portId: 0, body }, datagram);
      },
    ),
    { numRuns: 3000 },
  );
});
