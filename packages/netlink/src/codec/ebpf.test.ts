import assert from "node:assert/strict";
import test from "node:test";
import { assemble, call, compute, jump, jumpIf, load, result } from "./ebpf.ts";

test("instructions are laid out as the kernel reads them, struct bpf_insn", () => {
  const hex = (...lines: Parameters<typeof assemble>[0]) => assemble(lines).toString("hex");
  assert.equal(hex(compute(6, "set", { register: 1 })), "bf16000000000000");
  assert.equal(hex(compute(1, "add", -8)), "07010000f8ffffff");
  assert.equal(hex(load(7, "u32", 6, 176)), "6167b00000000000");
  assert.equal(hex(load(3, "u64", 10, -16)), "79a3f0ff00000000");
  assert.equal(hex(call(113)), "8500000071000000");
  assert.equal(hex(...result(-1)), "b7000000ffffffff9500000000000000");
});

test("a jump leads to its label, forwards and back, and to no label that is not there", () => {
  const program = assemble([
    { label: "start" },
    jumpIf(1, "≠", 5, "end"),
    jump("start"),
    { label: "end" },
    ...result(0),
  ]);
  assert.deepEqual([program.readInt16LE(2), program.readInt16LE(10)], [1, -2]);
  assert.equal(program.subarray(0, 2).toString("hex"), "5501");
  assert.throws(() => assemble([jump("nowhere")]), /nowhere/);
});
