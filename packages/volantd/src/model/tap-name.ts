/** Names of taps, from the names of VMs. */

/** A link's name holds 15 bytes: IFNAMSIZ in include/uapi/linux/if.h, less the NUL. */
export const MAX_LINK_NAME = 15;

const PREFIX = "vttap-";
const HASH_DIGITS = 6;

/** FNV-1a (draft-eastlake-fnv), 64 bits, over UTF-8. Not for secrets: it only has to spread names. */
function fnv1a64(text: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}

/**
 * Names to try for a VM's tap, in order: the plain one where the VM's name leaves something unmistakable and fits, then ones that end in a hash
 * of the exact name. Without end, so that whoever keeps names unique takes the first free one.
 */
export function* tapNames(vmName: string): Generator<string, never> {
  const letters = vmName.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
  if (letters !== "" && PREFIX.length + letters.length <= MAX_LINK_NAME) yield PREFIX + letters;
  const head = letters.slice(0, MAX_LINK_NAME - PREFIX.length - HASH_DIGITS);
  for (let attempt = 0; ; attempt += 1) {
    const hash = fnv1a64(attempt === 0 ? vmName : `${vmName}\0${attempt}`);
    yield PREFIX + head + hash.toString(36).padStart(HASH_DIGITS, "0").slice(-HASH_DIGITS);
  }
}

/** The tap that a VM uses where Volant makes none itself: its name is the VM's, its case kept, and may be longer than a link's name can be. */
export function noopTapName(vmName: string): string {
  return `volar-tap-${vmName.replaceAll(/[^A-Za-z0-9]/g, "")}`;
}

/** Whether the kernel takes this name for a link (dev_valid_name in net/core/dev.c). */
export function isLinkName(name: string): boolean {
  return /^[^\s/:\0]+$/.test(name) && new TextEncoder().encode(name).length <= MAX_LINK_NAME && !/^\.\.?$/.test(name);
}
