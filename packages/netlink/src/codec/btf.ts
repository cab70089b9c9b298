/**
 * BTF, the kernel's description of its own types (Documentation/bpf/btf.rst), as /sys/kernel/btf/vmlinux holds it: as far as it takes to say where
 * in a structure a field lies. Where that is differs from kernel to kernel. No I/O.
 */
import { badMessage } from "../errors.ts";

const MAGIC = 0xeb9f;
/** struct btf_header without what later versions may add. */
const HEADER_BYTES = 24;
/** struct btf_type, and struct btf_member. */
const TYPE_BYTES = 12;
const MEMBER_BYTES = 12;
const POINTER_BITS = 64;

const INT = 1;
const POINTER = 2;
const STRUCT = 4;
const UNION = 5;
const ENUM = 6;
const FLOAT = 16;
/** Typedef, volatile, const, restrict and type tag: another name for a type. */
const NAMES: ReadonlySet<number> = new Set([8, 9, 10, 11, 18]);
/** By kind, what follows its struct btf_type: so many bytes, and so many for each of its members. */
const TRAILERS: readonly (readonly [fixed: number, each: number])[] = [
  [0, 0],
  [4, 0],
  [0, 0],
  [12, 0],
  [0, 12],
  [0, 12],
  [0, 8],
  [0, 0],
  [0, 0],
  [0, 0],
  [0, 0],
  [0, 0],
  [0, 0],
  [0, 8],
  [4, 0],
  [0, 12],
  [0, 0],
  [4, 0],
  [0, 0],
  [0, 12],
];
/** Names of names, or structures in structures, deeper than any kernel's: bytes that lead in a circle end here. */
const MOST_LEVELS = 32;

/** Where a field lies: bits from its structure's first. */
export interface FieldPlace {
  readonly bitOffset: number;
  readonly bits: number;
}

/** A kernel's types. */
export class Btf {
  readonly #bytes: Buffer;
  readonly #strings: Buffer;
  /** By a type's number, where its struct btf_type is. Number 0 is `void`. */
  readonly #types: number[] = [0];
  /** The same for structures, and for enumerations: few of all types. */
  readonly #structures: number[] = [];
  readonly #enumerations: number[] = [];

  /** Takes the bytes as they are, and shares them. EBADMSG where they are no BTF of a little-endian machine. */
  constructor(bytes: Buffer) {
    if (bytes.length < HEADER_BYTES || bytes.readUInt16LE(0) !== MAGIC) throw badMessage("not BTF");
    const body = bytes.readUInt32LE(4);
    const [typesAt, typesLength] = [body + bytes.readUInt32LE(8), bytes.readUInt32LE(12)];
    const [stringsAt, stringsLength] = [body + bytes.readUInt32LE(16), bytes.readUInt32LE(20)];
    const end = typesAt + typesLength;
    if (end > bytes.length || stringsAt + stringsLength > bytes.length) throw badMessage("BTF that is cut short");
    this.#bytes = bytes;
    this.#strings = bytes.subarray(stringsAt, stringsAt + stringsLength);
    let at = typesAt;
    while (at < end) {
      if (at + TYPE_BYTES > end) throw badMessage("a BTF type that is cut short");
      const kind = this.#kind(at);
      const trailer = TRAILERS[kind];
      if (trailer === undefined) throw badMessage(`a BTF type of the unknown kind ${kind}`);
      this.#types.push(at);
      if (kind === STRUCT) this.#structures.push(at);
      if (kind === ENUM) this.#enumerations.push(at);
      at += TYPE_BYTES + trailer[0] + trailer[1] * this.#members(at);
    }
    if (at !== end) throw badMessage("a BTF type that is cut short");
  }

  /** Where a field of a structure lies, also one of its unnamed structures and unions; undefined where there is no such field. */
  field(structure: string, name: string): FieldPlace | undefined {
    const [structureName, fieldName] = [this.#nameOffset(structure), this.#nameOffset(name)];
    if (structureName === undefined || fieldName === undefined) return undefined;
    for (const at of this.#structures) {
      if (this.#bytes.readUInt32LE(at) !== structureName) continue;
      const found = this.#findMember(at, fieldName, 0);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The value of an enumeration's constant, up to 32 bits; undefined where there is none of that name. */
  constant(name: string): number | undefined {
    const wanted = this.#nameOffset(name);
    if (wanted === undefined) return undefined;
    for (const at of this.#enumerations) {
      for (let index = 0; index < this.#members(at); index += 1) {
        const value = at + TYPE_BYTES + index * 8;
        if (this.#bytes.readUInt32LE(value) === wanted) return this.#bytes.readInt32LE(value + 4);
      }
    }
    return undefined;
  }

  #kind(at: number): number {
    return (this.#bytes.readUInt32LE(at + 4) >>> 24) & 0x1f;
  }

  #members(at: number): number {
    return this.#bytes.readUInt16LE(at + 4);
  }

  /** A name is known by where it stands among the strings, each of which is there once. */
  #nameOffset(name: string): number | undefined {
    const at = this.#strings.indexOf(`\0${name}\0`);
    return at === -1 ? undefined : at + 1;
  }

  #findMember(structure: number, name: number, level: number): FieldPlace | undefined {
    if (level > MOST_LEVELS) return undefined;
    const isBitfieldStructure = this.#bytes.readUInt32LE(structure + 4) >>> 31 === 1;
    for (let index = 0; index < this.#members(structure); index += 1) {
      const member = structure + TYPE_BYTES + index * MEMBER_BYTES;
      const type = this.#bytes.readUInt32LE(member + 4);
      const place = this.#bytes.readUInt32LE(member + 8);
      const [bitOffset, bitfieldBits] = isBitfieldStructure ? [place & 0xff_ffff, place >>> 24] : [place, 0];
      if (this.#bytes.readUInt32LE(member) === name) {
        const bits = bitfieldBits === 0 ? this.#bits(type) : bitfieldBits;
        return bits === undefined ? undefined : { bitOffset, bits };
      }
      if (this.#bytes.readUInt32LE(member) !== 0) continue;
      const inner = this.#resolve(type);
      if (inner === undefined || ![STRUCT, UNION].includes(this.#kind(inner))) continue;
      const found = this.#findMember(inner, name, level + 1);
      if (found !== undefined) return { bitOffset: bitOffset + found.bitOffset, bits: found.bits };
    }
    return undefined;
  }

  /** The type behind its names. */
  #resolve(type: number): number | undefined {
    let at = this.#types[type];
    for (let level = 0; level < MOST_LEVELS && at !== undefined && type !== 0; level += 1) {
      if (!NAMES.has(this.#kind(at))) return at;
      type = this.#bytes.readUInt32LE(at + 8);
      at = this.#types[type];
    }
    return undefined;
  }

  #bits(type: number): number | undefined {
    const at = this.#resolve(type);
    if (at === undefined) return undefined;
    if (this.#kind(at) === POINTER) return POINTER_BITS;
    return [INT, STRUCT, UNION, ENUM, FLOAT].includes(this.#kind(at))
      ? this.#bytes.readUInt32LE(at + 8) * 8
      : undefined;
  }
}
