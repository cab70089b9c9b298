import assert from "node:assert/strict";
import test from "node:test";
import { Btf } from "@volant/netlink";
import { packetLayout, type PacketLayout, soundChecksums } from "./sound-checksums.ts";

const LAYOUT: PacketLayout = {
  ipSummed: { byte: 128, shift: 5 },
  checksumStart: 136,
  checksumOffset: 138,
  head: 192,
  data: 200,
  end: 188,
  segmentType: 24,
};

test("a kernel whose types have other names for what the program reads gets no program", () => {
  const empty = Buffer.alloc(25);
  empty.writeUInt16LE(0xeb9f, 0);
  empty.writeUInt32LE(24, 4);
  empty.writeUInt32LE(1, 20);
  assert.equal(packetLayout(new Btf(empty)), undefined);
});

test("the program ends, each of its jumps leads forwards to an instruction of it, and it differs with the layout", () => {
  const program = soundChecksums(LAYOUT);
  const count = program.length / 8;
  for (let index = 0; index < count; index += 1) {
    const code = program.readUInt8(index * 8);
    const isJump = (code & 7) === 5 && code !== 0x85 && code !== 0x95;
    if (!isJump) continue;
    const offset = program.readInt16LE(index * 8 + 2);
    assert.ok(offset >= 0 && index + 1 + offset < count, `instruction ${index}`);
  }
  assert.equal(program.readUInt8((count - 1) * 8), 0x95);
  assert.notDeepEqual(soundChecksums({ ...LAYOUT, head: 208 }), program);
});
