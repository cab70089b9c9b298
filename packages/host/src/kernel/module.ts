/**
 * Kernel modules as files: what they say of themselves, and the order in which they can be loaded.
 *
 * Distribution packages carry no modules.dep (depmod(8) writes it when the package is configured), so the dependencies are read where depmod reads
 * them: in each module's `.modinfo` section, which holds NUL-separated `key=value` strings (Linux, include/linux/moduleparam.h).
 */

const ELF_MAGIC = 0x464c457f;

/** What a module says of itself. Names are in modinfo's form, with `_` where the file's name may have `-`. */
export interface ModuleInfo {
  readonly name: string;
  readonly depends: readonly string[];
  /** The first word of `vermagic`: the kernel release that the module belongs to. */
  readonly release: string;
}

/** The name under which the kernel knows a module: `-` and `_` are the same (modprobe(8)). */
export function moduleName(text: string): string {
  return text.replaceAll("-", "_");
}

function modinfoSection(file: Uint8Array): Uint8Array | undefined {
  if (file.length < 64) return undefined;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (view.getUint32(0, true) !== ELF_MAGIC || file[4] !== 2 || file[5] !== 1) return undefined;
  // elf(5): e_shoff, e_shentsize, e_shnum, e_shstrndx.
  const tableOffset = Number(view.getBigUint64(40, true));
  const entryBytes = view.getUint16(58, true);
  const entries = view.getUint16(60, true);
  if (entryBytes < 64 || tableOffset + entries * entryBytes > file.length) return undefined;
  const section = (index: number): { name: number; start: number; end: number } => {
    const at = tableOffset + index * entryBytes;
    const start = Number(view.getBigUint64(at + 24, true));
    return { name: view.getUint32(at, true), start, end: start + Number(view.getBigUint64(at + 32, true)) };
  };
  const namesIndex = view.getUint16(62, true);
  if (namesIndex >= entries) return undefined;
  const names = section(namesIndex);
  for (let index = 0; index < entries; index += 1) {
    const candidate = section(index);
    const nameAt = names.start + candidate.name;
    if (Buffer.from(file.subarray(nameAt, nameAt + 9)).toString("latin1") !== ".modinfo\0") continue;
    return candidate.end <= file.length ? file.subarray(candidate.start, candidate.end) : undefined;
  }
  return undefined;
}

/** Reads a module file (unpacked); undefined when it is no 64-bit little-endian kernel module. */
export function readModuleInfo(file: Uint8Array): ModuleInfo | undefined {
  const section = modinfoSection(file);
  if (section === undefined) return undefined;
  const values = new Map<string, string>();
  for (const entry of Buffer.from(section).toString("latin1").split("\0")) {
    const equals = entry.indexOf("=");
    if (equals > 0) values.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  const name = values.get("name");
  const release = values.get("vermagic")?.split(" ")[0];
  if (name === undefined || release === undefined) return undefined;
  const depends = (values.get("depends") ?? "").split(",").filter((word) => word !== "");
  return { name: moduleName(name), depends: depends.map(moduleName), release };
}

/**
 * The modules that `wanted` need, themselves included, each after all that it depends on. Names that are not in the map are taken to be built
 * into the kernel and left out. A cycle, which the kernel does not allow, is cut where it closes.
 */
export function loadOrder(
  wanted: readonly string[],
  modules: ReadonlyMap<string, { readonly depends: readonly string[] }>,
): string[] {
  const order: string[] = [];
  const seen = new Set<string>();
  const visit = (name: string): void => {
    const found = modules.get(name);
    if (found === undefined || seen.has(name)) return;
    seen.add(name);
    for (const dependency of found.depends) visit(moduleName(dependency));
    order.push(name);
  };
  for (const name of wanted) visit(moduleName(name));
  return order;
}
