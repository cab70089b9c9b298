import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { decodeBlockFilter, decodeIngress, encodeProgram, writeBlockFilter, writeIngress } from "./traffic.ts";
import { MessageWriter } from "./writer.ts";

const written = (write: (writer: MessageWriter) => void): Buffer => {
  const writer = new MessageWriter(16);
  write(writer);
  return writer.finish();
};
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const byte = fc.integer({ min: 0, max: 255 });
const instruction = fc.tuple(fc.integer({ min: 0, max: 0xffff }), byte, byte, u32);

test("a filter is read as it was written, whatever its program and its link", () => {
  const filter = fc.record({
    priority: fc.integer({ min: 1, max: 0xffff }),
    program: fc.array(instruction, { minLength: 1, maxLength: 40 }),
    redirect: fc.option(fc.integer({ min: 1, max: 0x7fff_ffff }), { nil: undefined }),
  });
  fc.assert(
    fc.property(u32, filter, (block, { priority, program, redirect }) => {
      const expected = { priority, program, ...(redirect === undefined ? {} : { redirect }) };
      const body = written((writer) => writeBlockFilter(writer, block, expected));
      assert.equal(body.readInt32LE(4), -1, "it is about a block, not a link");
      assert.equal(body.readUInt32LE(12), block);
      assert.deepEqual(decodeBlockFilter(body), expected);
    }),
  );
});

test("a program that is loaded is known by its tag, and only where its result is the verdict", () => {
  const body = written((writer) => {
    writeBlockFilter(writer, 5, { priority: 2, loaded: { fd: 9, name: "some_program" } });
  });
  const listed = (flags: number): Buffer =>
    written((writer) => {
      writer.raw(body.subarray(0, 20));
      writer.stringAttribute(1, "bpf");
      writer.attribute(2, () => {
        writer.u32Attribute(8, flags);
        writer.bytesAttribute(10, Buffer.from("0011223344556677", "hex"));
      });
    });
  assert.ok(body.includes("some_program\0"));
  assert.deepEqual(decodeBlockFilter(listed(1)), { priority: 2, program: [], tag: "0011223344556677" });
  assert.deepEqual(decodeBlockFilter(listed(0)), { priority: 2, program: [] });
});

test("an ingress is read as it was written; another queueing discipline is none", () => {
  const body = written((writer) => writeIngress(writer, 7, 0x766f6c61));
  assert.deepEqual(decodeIngress(body), { link: 7, block: 0x766f6c61 });
  body.writeUInt32LE(0xffff_ffff, 12);
  assert.equal(decodeIngress(body), undefined);
});

test("an instruction is laid out as the kernel reads it: struct sock_filter", () => {
  assert.equal(encodeProgram([[0x15, 1, 2, 0x0180_c200]]).toString("hex"), "1500010200c28001");
});

test("bytes that are no message of this kind are EBADMSG or nothing, never another error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const decode of [decodeBlockFilter, decodeIngress]) {
        try {
          decode(Buffer.from(bytes));
        } catch (error) {
          assert.equal((error as { code?: string }).code, "EBADMSG");
        }
      }
    }),
  );
});
