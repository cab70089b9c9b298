import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Btf } from "./btf.ts";

const KIND = { int: 1, pointer: 2, array: 3, struct: 4, union: 5, enum: 6, typedef: 8, function: 13 } as const;

/** A few types, numbered from 1 as they are added. */
class Types {
  #strings = "\0";
  readonly #types: Buffer[] = [];

  name(text: string): number {
    if (text === "") return 0;
    const known = this.#strings.indexOf(`\0${text}\0`);
    if (known !== -1) return known + 1;
    const at = this.#strings.length;
    this.#strings += `${text}\0`;
    return at;
  }

  add(
    name: string,
    kind: keyof typeof KIND,
    size: number,
    words: readonly number[] = [],
    members = 0,
    flag = 0,
  ): number {
    const head = [this.name(name), flag * 2 ** 31 + KIND[kind] * 2 ** 24 + members, size];
    const bytes = Buffer.alloc((head.length + words.length) * 4);
    for (const [index, word] of [...head, ...words].entries()) bytes.writeUInt32LE(word >>> 0, index * 4);
    this.#types.push(bytes);
    return this.#types.length;
  }

  struct(
    name: string,
    members: readonly (readonly [name: string, type: number, bit: number, bits?: number])[],
    kind: "struct" | "union" = "struct",
  ): number {
    const flag = members.some(([, , , bits]) => bits !== undefined) ? 1 : 0;
    const words = members.flatMap(([member, type, bit, bits = 0]) => [this.name(member), type, bits * 2 ** 24 + bit]);
    return this.add(name, kind, 64, words, members.length, flag);
  }

  finish(): Buffer {
    const [types, strings] = [Buffer.concat(this.#types), Buffer.from(this.#strings, "latin1")];
    const head = Buffer.alloc(24);
    head.writeUInt16LE(0xeb9f, 0);
    head.writeUInt8(1, 2);
    for (const [index, word] of [24, 0, types.length, types.length, strings.length].entries()) {
      head.writeUInt32LE(word, 4 + index * 4);
    }
    return Buffer.concat([head, types, strings]);
  }
}

function sample(): Buffer {
  const types = new Types();
  const u8 = types.add("u8", "int", 1, [8]);
  const u16 = types.add("u16", "int", 2, [16]);
  const alias = types.add("alias", "typedef", u16);
  const pointer = types.add("", "pointer", u8);
  types.add("", "function", 0, [0, u8], 1);
  const list = types.add("", "array", 0, [u8, u8, 4]);
  const pair = types.struct("", [
    ["start", u16, 0],
    ["offset", alias, 16],
  ]);
  const either = types.struct(
    "",
    [
      ["whole", u8, 0],
      ["", pair, 0],
    ],
    "union",
  );
  const flags = types.struct("", [
    ["before", u8, 0, 5],
    ["summed", u8, 5, 2],
  ]);
  types.struct("packet", [
    ["head", pointer, 0],
    ["list", list, 64],
    ["", flags, 96],
    ["", either, 128],
  ]);
  types.add("", "enum", 4, [types.name("FIRST"), 1, types.name("LESS"), -2], 2);
  return types.finish();
}

test("a field is found where it lies, through unnamed structures and unions, bit fields and other names of types", () => {
  const btf = new Btf(sample());
  assert.deepEqual(btf.field("packet", "head"), { bitOffset: 0, bits: 64 });
  assert.deepEqual(btf.field("packet", "summed"), { bitOffset: 101, bits: 2 });
  assert.deepEqual(btf.field("packet", "start"), { bitOffset: 128, bits: 16 });
  assert.deepEqual(btf.field("packet", "offset"), { bitOffset: 144, bits: 16 });
});

test("what is not there, or has no size that is known here, is undefined", () => {
  const btf = new Btf(sample());
  assert.equal(btf.field("packet", "list"), undefined);
  assert.equal(btf.field("packet", "alias"), undefined);
  assert.equal(btf.field("packets", "head"), undefined);
  assert.equal(btf.field("u16", "head"), undefined);
  assert.equal(btf.constant("SECOND"), undefined);
  assert.equal(btf.constant("head"), undefined);
});

test("a constant of an enumeration has its value", () => {
  const btf = new Btf(sample());
  assert.deepEqual([btf.constant("FIRST"), btf.constant("LESS")], [1, -2]);
});

test("bytes that are no BTF, that are cut short or changed, are EBADMSG or give some answer, never another error", () => {
  const good = sample();
  const ask = (bytes: Buffer) => {
    try {
      const btf = new Btf(bytes);
      for (const name of ["head", "summed", "offset", "FIRST"]) {
        btf.field("packet", name);
        btf.constant(name);
      }
    } catch (error) {
      assert.equal((error as { code?: string }).code, "EBADMSG");
    }
  };
  for (let length = 0; length < good.length; length += 1) ask(Buffer.from(good.subarray(0, length)));
  fc.assert(
    fc.property(
      fc.nat(good.length - 1),
      fc.nat(255),
      fc.nat(good.length - 1),
      fc.nat(255),
      (at, value, at2, value2) => {
        const bytes = Buffer.from(good);
        bytes[at] = value;
        bytes[at2] = value2;
        ask(bytes);
      },
    ),
    { numRuns: 2000 },
  );
});
