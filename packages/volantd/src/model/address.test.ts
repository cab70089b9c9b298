import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  broadcastAddress,
  formatAddress,
  formatNetmask,
  formatSubnet,
  isLeasable,
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

test("network, broadcast and gateway may not be leased, and every other address of the subnet may", () => {
  fc.assert(
    fc.property(pool, fc.double({ min: 0, max: 1, noNaN: true }), ({ subnet, gateway }, pick) => {
      const last = broadcastAddress(subnet);
      for (const value of [subnet.network, gateway, last, subnet.network - 1, last + 1]) {
        assert.ok(!isLeasable({ subnet, gateway }, value), formatAddress(value));
      }
      const inside = subnet.network + 1 + Math.floor(pick * (subnetSize(subnet) - 2));
      assert.equal(isLeasable({ subnet, gateway }, Math.min(inside, last - 1)), Math.min(inside, last - 1) !== gateway);
    }),
  );
});
