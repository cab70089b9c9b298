import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  broadcastAddress,
  formatAddress,
  formatNetmask,
  formatSubnet,
  isLeasable,
  lowestFree,
  parseAddress,
  parseSubnet,
  subnetSize,
  type AddressPool,
} from "./address.ts";

const address = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const pool = fc
  .record({ address, prefixLength: fc.integer({ min: 8, max: 30 }), pick: fc.double({ min: 0, max: 1, noNaN: true }) })
  .map((draw): AddressPool => {
    const size = 2 ** (32 - draw.prefixLength);
    const network = draw.address - (draw.address % size);
    const gateway = network + 1 + Math.min(size - 3, Math.floor(draw.pick * (size - 2)));
    return { subnet: { network, prefixLength: draw.prefixLength }, gateway };
  });

test("an address and a subnet survive being written and read", () => {
  fc.assert(fc.property(address, (value) => assert.equal(parseAddress(formatAddress(value)), value)));
  fc.assert(fc.property(pool, ({ subnet }) => assert.deepEqual(parseSubnet(formatSubnet(subnet)), subnet)));
});

test("what is no address is none: signs, leading zeroes, too few parts, too many", () => {
  for (const text of ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.-4", "1.2.3.4 ", "a.b.c.d", "1..2.3"]) {
    assert.equal(parseAddress(text), undefined, text);
  }
  fc.assert(
    fc.property(fc.string(), (text) => {
      const value = parseAddress(text);
      if (value !== undefined) assert.equal(formatAddress(value), text);
    }),
  );
});

test("a subnet with host bits, of a size out of range or malformed is refused in words", () => {
  for (const text of ["10.0.0.1/24", "10.0.0.0/31", "10.0.0.0/7", "10.0.0.0", "10.0.0.0/", "10.0.0.0/24/1", "x/24"]) {
    assert.throws(() => parseSubnet(text), { name: "VolantError", code: "invalid" }, text);
  }
});

test("netmasks", () => {
  assert.equal(formatNetmask(0), "0.0.0.0");
  assert.equal(formatNetmask(8), "255.0.0.0");
  assert.equal(formatNetmask(22), "255.255.252.0");
  assert.equal(formatNetmask(30), "255.255.255.252");
  assert.equal(formatNetmask(32), "255.255.255.255");
});

test("the lowest free address is the first of all that may be leased and are not taken", () => {
  fc.assert(
    fc.property(pool, fc.array(fc.integer({ min: -3, max: 40 }), { maxLength: 40 }), (drawn, offsets) => {
      const taken = [...new Set(offsets.map((offset) => drawn.subnet.network + offset))].sort((a, b) => a - b);
      const found = lowestFree(drawn, taken);
      let expected: number | undefined;
      for (let candidate = drawn.subnet.network; candidate <= broadcastAddress(drawn.subnet); candidate += 1) {
        if (!isLeasable(drawn, candidate) || taken.includes(candidate)) continue;
        expected = candidate;
        break;
      }
      assert.equal(found, expected);
    }),
  );
});

test("network, broadcast and gateway are never leased, and every other address of the subnet is", () => {
  fc.assert(
    fc.property(fc.integer({ min: 26, max: 30 }), address, (prefixLength, start) => {
      const size = 2 ** (32 - prefixLength);
      const network = start - (start % size);
      const small: AddressPool = { subnet: { network, prefixLength }, gateway: network + 1 };
      const leased: number[] = [];
      for (let next = lowestFree(small, leased); next !== undefined; next = lowestFree(small, leased))
        leased.push(next);
      assert.equal(leased.length, size - 3);
      for (const value of [network, network + 1, network + size - 1]) assert.ok(!leased.includes(value));
    }),
  );
});

test("a /8 gives its first address without walking its sixteen million", () => {
  const large: AddressPool = { subnet: parseSubnet("10.0.0.0/8"), gateway: 0x0a000001 };
  assert.equal(subnetSize(large.subnet), 2 ** 24);
  let reads = 0;
  function* taken(): Generator<number> {
    for (let value = 0x0a000002; ; value += 2) {
      reads += 1;
      yield value;
    }
  }
  assert.equal(formatAddress(lowestFree(large, taken()) ?? 0), "10.0.0.3");
  assert.equal(reads, 2);
});
