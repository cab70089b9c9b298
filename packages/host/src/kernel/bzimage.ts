/**
 * x86 kernel images. The header's fields and offsets are those of Linux's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"; the
 * note that makes an ELF kernel bootable by a hypervisor is XEN_ELFNOTE_PHYS32_ENTRY of include/xen/interface/elfnote.h (the PVH boot protocol).
 */
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { decodeLz4Legacy, Lz4Error, LZ4_LEGACY_MAGIC } from "./lz4.ts";

/** "HdrS" at 0x202, read as a little-endian word. */
const HEADER_MAGIC = 0x53726448;
/** Protocol 2.08 brought payload_offset and payload_length. */
const FIRST_PROTOCOL_WITH_PAYLOAD = 0x0208;
const GZIP_MAGIC = 0x8b1f;
const ZSTD_MAGIC = 0xfd2fb528;
const ELF_MAGIC = 0x464c457f;
const EM_X86_64 = 62;
const PT_NOTE = 4;
const XEN_ELFNOTE_PHYS32_ENTRY = 18;
/** More than any distribution's kernel takes up unpacked (about 60 MB), and little enough to unpack in memory. */
const MAX_KERNEL_BYTES = 256 * 1024 * 1024;

/** The uncompressed kernel, or why it could not be had. */
export type ExtractedElf =
  | { readonly ok: true; readonly elf: Uint8Array }
  | { readonly ok: false; readonly reason: string };

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Whether the bytes begin like a bzImage of any boot protocol version. */
export function isBzImage(image: Uint8Array): boolean {
  return image.length >= 0x264 && viewOf(image).getUint32(0x202, true) === HEADER_MAGIC;
}

/** The release (`uname -r`) that a bzImage names in its header; undefined when it names none. */
export function bzImageRelease(image: Uint8Array): string | undefined {
  if (!isBzImage(image)) return undefined;
  const pointer = viewOf(image).getUint16(0x20e, true);
  if (pointer === 0) return undefined;
  const start = pointer + 0x200;
  const text = Buffer.from(image.subarray(start, start + 256)).toString("latin1");
  return /^[A-Za-z0-9._+~-]{1,64}/.exec(text)?.[0];
}

function unpack(payload: Uint8Array): ExtractedElf {
  const magic = viewOf(payload).getUint32(0, true);
  // For every format but gzip the build appends the unpacked size in 4 bytes (scripts/Makefile.lib, size_append).
  const body = payload.subarray(0, payload.length - 4);
  try {
    if ((magic & 0xffff) === GZIP_MAGIC) {
      return { ok: true, elf: gunzipSync(payload, { maxOutputLength: MAX_KERNEL_BYTES }) };
    }
    if (magic === ZSTD_MAGIC) return { ok: true, elf: zstdDecompressSync(body, { maxOutputLength: MAX_KERNEL_BYTES }) };
    if (magic === LZ4_LEGACY_MAGIC) {
      const size = viewOf(payload).getUint32(payload.length - 4, true);
      if (size > MAX_KERNEL_BYTES) return { ok: false, reason: `it claims to unpack to ${size} bytes` };
      return { ok: true, elf: decodeLz4Legacy(body, size) };
    }
  } catch (error) {
    if (error instanceof Lz4Error || (error instanceof Error && "code" in error)) {
      return { ok: false, reason: `its compressed part does not unpack: ${error.message}` };
    }
    throw error;
  }
  return { ok: false, reason: "it is packed with neither gzip, LZ4 nor Zstandard" };
}

/** Whether an ELF file is an x86-64 kernel that can be entered through the PVH protocol, which is what QEMU's `-kernel` needs of an ELF. */
export function isPvhKernel(elf: Uint8Array): boolean {
  if (elf.length < 64) return false;
  const view = viewOf(elf);
  if (view.getUint32(0, true) !== ELF_MAGIC || elf[4] !== 2 || elf[5] !== 1) return false;
  if (view.getUint16(18, true) !== EM_X86_64) return false;
  const tableOffset = Number(view.getBigUint64(32, true));
  const entryBytes = view.getUint16(54, true);
  const entries = view.getUint16(56, true);
  if (entryBytes < 56) return false;
  for (let index = 0; index < entries; index += 1) {
    const at = tableOffset + index * entryBytes;
    if (at + 56 > elf.length) return false;
    if (view.getUint32(at, true) !== PT_NOTE) continue;
    const offset = Number(view.getBigUint64(at + 8, true));
    const size = Number(view.getBigUint64(at + 32, true));
    if (offset + size <= elf.length && hasEntryNote(elf.subarray(offset, offset + size))) return true;
  }
  return false;
}

/** Notes are name size, content size, type, name, content; name and content padded to 4 bytes (elf(5), "Notes"). */
function hasEntryNote(notes: Uint8Array): boolean {
  const view = viewOf(notes);
  let at = 0;
  while (at + 12 <= notes.length) {
    const nameSize = view.getUint32(at, true);
    const contentSize = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true);
    const name = Buffer.from(notes.subarray(at + 12, at + 12 + Math.min(nameSize, 8))).toString("latin1");
    if (type === XEN_ELFNOTE_PHYS32_ENTRY && name === "Xen\0") return true;
    at += 12 + Math.ceil(nameSize / 4) * 4 + Math.ceil(contentSize / 4) * 4;
  }
  return false;
}

/**
 * Cuts the uncompressed kernel out of a bzImage. A machine that is given the ELF file need not unpack the kernel in the guest, which is what
 * takes time where the processor is emulated.
 *
 * @returns the ELF file, or a reason that completes the sentence "the kernel can't be taken out of its image: …"
 */
export function extractElf(image: Uint8Array): ExtractedElf {
  if (!isBzImage(image)) return { ok: false, reason: "it is no x86 bzImage" };
  const view = viewOf(image);
  if (view.getUint16(0x206, true) < FIRST_PROTOCOL_WITH_PAYLOAD) {
    return { ok: false, reason: "its boot protocol is older than 2.08" };
  }
  // boot.rst: setup_sects of 0 means 4.
  const setupSectors = image[0x1f1] === 0 ? 4 : (image[0x1f1] as number);
  const start = (setupSectors + 1) * 512 + view.getUint32(0x248, true);
  const length = view.getUint32(0x24c, true);
  if (length < 8 || start + length > image.length) return { ok: false, reason: "its header points outside the file" };
  const unpacked = unpack(image.subarray(start, start + length));
  if (!unpacked.ok) return unpacked;
  if (!isPvhKernel(unpacked.elf)) return { ok: false, reason: "it was built without CONFIG_PVH" };
  return unpacked;
}
