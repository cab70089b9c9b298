/** Programs of eBPF as bytes (RFC 9669), put together from lines with named places to jump to. No I/O. */

/** Registers by number: 0 holds results, 1 to 5 arguments, 6 to 9 outlive calls, 10 is the stack's end. */
export type Register = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;

/** One line: an instruction as it is on the wire, where `jump` names the place that `offset` is to lead to; or such a place. */
export type EbpfLine =
  | {
      readonly code: number;
      readonly to: Register;
      readonly from: Register;
      readonly offset: number;
      readonly immediate: number;
      readonly jump?: string;
    }
  | { readonly label: string };

const INSTRUCTION_BYTES = 8;
/** RFC 9669, 4 and 5: operations of 64 bits, and their source: a number or a register. */
const MATH = 0x07;
const JUMP = 0x05;
const FROM_REGISTER = 0x08;
const OPERATION = { add: 0x00, subtract: 0x10, and: 0x50, shiftLeft: 0x60, shiftRight: 0x70, set: 0xb0 } as const;
const CONDITION = { always: 0x00, "=": 0x10, "≠": 0x50, "<": 0xa0 } as const;
const LOAD = { u32: 0x61, u16: 0x69, u8: 0x71, u64: 0x79 } as const;
const CALL = 0x85;
const EXIT = 0x95;

/** `{ register: r }`, or a number of 32 bits with its sign. */
export type Operand = number | { readonly register: Register };

function operand(value: Operand): { readonly code: number; readonly from: Register; readonly immediate: number } {
  return typeof value === "number"
    ? { code: 0, from: 0, immediate: value }
    : { code: FROM_REGISTER, from: value.register, immediate: 0 };
}

/** Computes `to` from itself and the operand. */
export function compute(to: Register, operation: keyof typeof OPERATION, value: Operand): EbpfLine {
  const { code, ...rest } = operand(value);
  return { code: MATH | code | OPERATION[operation], to, offset: 0, ...rest };
}

/** Loads an unsigned integer of this machine's byte order from `base` + `offset`. */
export function load(to: Register, size: keyof typeof LOAD, from: Register, offset: number): EbpfLine {
  return { code: LOAD[size], to, from, offset, immediate: 0 };
}

/** Goes on at the label. */
export function jump(label: string): EbpfLine {
  return { code: JUMP, to: 0, from: 0, offset: 0, immediate: 0, jump: label };
}

/** Goes on at the label where it is so; numbers are compared without a sign. */
export function jumpIf(
  to: Register,
  condition: Exclude<keyof typeof CONDITION, "always">,
  value: Operand,
  label: string,
): EbpfLine {
  const { code, ...rest } = operand(value);
  return { code: JUMP | code | CONDITION[condition], to, offset: 0, ...rest, jump: label };
}

/** Calls a helper of the kernel (bpf-helpers(7)), by its number in enum bpf_func_id. */
export function call(helper: number): EbpfLine {
  return { code: CALL, to: 0, from: 0, offset: 0, immediate: helper };
}

/** Ends the program with this result. */
export function result(value: number): readonly EbpfLine[] {
  return [compute(0, "set", value), { code: EXIT, to: 0, from: 0, offset: 0, immediate: 0 }];
}

/** The program as the kernel reads it: struct bpf_insn (include/uapi/linux/bpf.h). */
export function assemble(lines: readonly EbpfLine[]): Buffer {
  const places = new Map<string, number>();
  let count = 0;
  for (const line of lines) {
    if ("label" in line) places.set(line.label, count);
    else count += 1;
  }
  const bytes = Buffer.alloc(count * INSTRUCTION_BYTES);
  let index = 0;
  for (const line of lines) {
    if ("label" in line) continue;
    const place = line.jump === undefined ? undefined : places.get(line.jump);
    if (line.jump !== undefined && place === undefined) throw new RangeError(`no place is called ${line.jump}`);
    const at = index * INSTRUCTION_BYTES;
    bytes.writeUInt8(line.code, at);
    bytes.writeUInt8(line.to + line.from * 16, at + 1);
    bytes.writeInt16LE(place === undefined ? line.offset : place - index - 1, at + 2);
    bytes.writeInt32LE(line.immediate, at + 4);
    index += 1;
  }
  return bytes;
}
