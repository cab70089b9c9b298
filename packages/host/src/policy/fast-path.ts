/** The program of sound-checksums.ts in this kernel, where the kernel takes it. */
import { readFile } from "node:fs/promises";
import { VolantError } from "@volant/contract";
import { Btf, loadClassifier, type LoadedProgram, NetlinkError } from "@volant/netlink";
import { packetLayout, soundChecksums } from "./sound-checksums.ts";

const KERNEL_TYPES = "/sys/kernel/btf/vmlinux";
const NAME = "volant_sound";
/** Reading the kernel's memory takes a program that says it goes with the kernel's licence: these instructions are under either. */
const LICENSE = "Dual BSD/GPL";

export interface FastPath {
  /** What the kernel knows the program by. */
  readonly tag: string;
  /** Loads it. A filter that is made of it keeps it, so that this may be let go then. */
  load(): LoadedProgram;
}

/**
 * Finds out whether this kernel takes the program: it tells where its fields are if it is built to (CONFIG_DEBUG_INFO_BTF, since
 * 5.4), and must let root read its memory (kernel_lockdown(7)).
 *
 * @throws VolantError `not_ready` where it does not
 */
export async function openFastPath(): Promise<FastPath> {
  try {
    const layout = packetLayout(new Btf(await readFile(KERNEL_TYPES)));
    if (layout === undefined) throw refusal(`${KERNEL_TYPES} shows packets laid out in another way than is known here`);
    const instructions = soundChecksums(layout);
    const load = () => loadClassifier({ instructions, name: NAME, license: LICENSE });
    using loaded = load();
    return { tag: loaded.tag, load };
  } catch (error) {
    const expected = error instanceof NetlinkError || (error instanceof Error && "syscall" in error);
    throw expected ? refusal(error.message, error) : error;
  }
}

function refusal(reason: string, cause?: Error): VolantError {
  const message = `all that guests send goes by way of the guard's link, which takes longer: ${reason}`;
  return new VolantError("not_ready", message, cause === undefined ? {} : { cause });
}
