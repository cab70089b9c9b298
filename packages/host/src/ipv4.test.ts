import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { blockHolds, blockOf, blocksOverlap, formatIpv4, lastAddress, parseCidr, parseIpv4 } from "./ipv4.ts";

const anyAddress = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const anyBlock = fc
  .tuple(anyAddress, fc.integer({ min: 0, max: 32 }))
  .map(([address, length]) => blockOf(address, length));

test("an address survives being written and read", () => {
  fc.assert(fc.property(anyAddress, (address) => assert.equal(parseIpv4(formatIpv4(address)), address)));
});

test("what is no dotted quad is no address", () => {
  for (const text of [
    "",
    "1.2.3",
    "1.2.3.4.5",
    "256.0.0.1",
    "01.2.3.4",
    "0x7f.0.0.1",
    " 1.2.3.4",
    "1.2.3.4/24",
    "::1",
  ]) {
    assert.equal(parseIpv4(text), undefined, text);
  }
  for (const text of ["1.2.3.4", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/024"]) {
    assert.equal(parseCidr(text), undefined, text);
  }
});

test("a block holds its address, and two overlap exactly when one holds the other's first", () => {
  fc.assert(
    fc.property(anyAddress, anyBlock, anyBlock, (address, a, b) => {
      assert.ok(blockHolds(blockOf(address, a.prefixLength), address));
      assert.ok(lastAddress(a) < 2 ** 32);
      assert.equal(blocksOverlap(a, b), blockHolds(a, b.first) || blockHolds(b, a.first));
    }),
  );
});
