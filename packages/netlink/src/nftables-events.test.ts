import assert from "node:assert/strict";
import test from "node:test";
import { type NftablesChange, NftablesNews } from "./nftables-events.ts";

const NFTABLES = 10 << 8;
const NEW_TABLE = NFTABLES | 0;
const NEW_SET_ELEMENTS = NFTABLES | 12;
const NEW_GENERATION = NFTABLES | 15;

/** A message's body: struct nfgenmsg, and attributes. */
function body(family: number, ...attributes: readonly (readonly [type: number, value: Buffer])[]): Buffer {
  const parts = attributes.map(([type, value]) => {
    const part = Buffer.alloc((4 + value.length + 3) & ~3);
    part.writeUInt16LE(4 + value.length, 0);
    part.writeUInt16LE(type, 2);
    value.copy(part, 4);
    return part;
  });
  return Buffer.concat([Buffer.from([family, 0, 0, 0]), ...parts]);
}

const inTable = (family: number, name: string): Buffer =>
  body(family, [2, Buffer.from("names\0")], [1, Buffer.from(`${name}\0`)]);

function generation(pid: number): Buffer {
  const value = Buffer.alloc(4);
  value.writeUInt32BE(pid);
  return body(0, [1, Buffer.alloc(4)], [2, value], [3, Buffer.from("nft\0")]);
}

function hearing(news: NftablesNews) {
  return (type: number, bytes: Buffer): NftablesChange[] => {
    const change = news.hear(type, bytes);
    return change === undefined ? [] : [change];
  };
}

test("a transaction is told at its end, with whose it was and the tables that were changed, each once", () => {
  const news = new NftablesNews();
  const heard = hearing(news);
  assert.deepEqual(heard(NEW_TABLE, inTable(2, "filter")), []);
  assert.deepEqual(heard(NEW_SET_ELEMENTS, inTable(7, "volant")), []);
  assert.deepEqual(heard(NEW_SET_ELEMENTS, inTable(7, "volant")), []);
  const [first, second] = [
    { family: 2, name: "filter" },
    { family: 7, name: "volant" },
  ];
  assert.deepEqual(heard(NEW_GENERATION, generation(300)), [{ by: 300, tables: [first, second] }]);
  heard(NEW_SET_ELEMENTS, inTable(7, "volant"));
  assert.deepEqual(heard(NEW_GENERATION, generation(301)), [{ by: 301, tables: [second] }]);
  assert.deepEqual(heard(NEW_GENERATION, generation(302)), [{ by: 302, tables: [] }]);
});

test("after an overrun the rest of a transaction may be about any table, and the next one is whole again", () => {
  const news = new NftablesNews();
  const heard = hearing(news);
  heard(NEW_TABLE, inTable(2, "filter"));
  assert.deepEqual(news.missed(), { by: undefined, tables: undefined });
  heard(NEW_TABLE, inTable(2, "nat"));
  assert.deepEqual(heard(NEW_GENERATION, generation(300)), [{ by: 300, tables: undefined }]);
  heard(NEW_TABLE, inTable(2, "nat"));
  assert.deepEqual(heard(NEW_GENERATION, generation(301)), [{ by: 301, tables: [{ family: 2, name: "nat" }] }]);
});

test("what is not nftables' is not heard, and a message that is cut off is EBADMSG", () => {
  const news = new NftablesNews();
  const heard = hearing(news);
  assert.deepEqual(heard(3, Buffer.alloc(4)), []);
  const whole = inTable(2, "filter");
  assert.throws(() => heard(NEW_TABLE, whole.subarray(0, whole.length - 8)), { code: "EBADMSG" });
});
