/**
 * What a guest may send, as one object per VM, and the checks that it is sound before anything is built from it. No I/O.
 */
import { isIPv4 } from "node:net";
import { VolantError } from "@volant/contract";

/** The rules hold every link whose name begins so, whether it has an entry or not; links of other names only by their entry. */
export const TAP_PREFIX = "vttap-";

/** The policy of one VM's tap. */
export interface PolicyEntry {
  /** The VM's id: entries are found again by it, and by the installation's. */
  readonly vmId: number;
  /** The tap's name. It need not exist yet: the entry comes first. */
  readonly tap: string;
  /** The one hardware address that the guest may use, such as `02:5e:00:00:00:01`. */
  readonly mac: string;
  /** `dhcp` lets the guest speak to DHCP servers as a client, besides what its lease allows. */
  readonly mode: "bridged" | "dhcp";
  /** The IPv4 addresses of the lease. Empty in `dhcp` until a lease is known: then the guest can only ask for one. */
  readonly addresses: readonly string[];
  /** In `dhcp`, for how long the server gave them; kept with them, for whoever finds the entry later. 0xffffffff is for ever. */
  readonly leaseSeconds?: number | undefined;
  /** `false` lets everything pass. Only the operator may say so: never a manifest, and never a VM's `network`. */
  readonly antiSpoof: boolean;
}

/** IFNAMSIZ without its terminator (include/uapi/linux/if.h). */
const MAX_LINK_NAME_BYTES = 15;
/** What {@link isHoldableTap} asks for, in words. */
export const HOLDABLE_NAMES =
  "expected letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 15 bytes";

/** Whether the rules can name this tap. A `*` at a name's end would mean many links to nft. */
export function isHoldableTap(tap: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(tap) && tap.length <= MAX_LINK_NAME_BYTES && tap !== TAP_PREFIX;
}

/** An address that is nobody's own: 0/8, loopback, multicast, reserved and broadcast (RFC 6890). */
const NOBODYS_ADDRESS = /^(?:0|127|22[4-9]|2[34]\d|25[0-5])\./;

/** Whether a guest can have this address: IPv4, and not 0/8, loopback, multicast, reserved or broadcast. */
export function isHostAddress(address: string): boolean {
  return isIPv4(address) && !NOBODYS_ADDRESS.test(address);
}

function refuse(entry: PolicyEntry, problem: string): never {
  throw new VolantError("invalid", `the policy of VM ${entry.vmId} (tap "${entry.tap}") ${problem}`);
}

/** Checks the id that names whose entries they are. Throws VolantError `invalid`. */
export function checkInstallation(installation: string): string {
  if (/^[0-9a-f]{4,64}$/.test(installation)) return installation;
  throw new VolantError("invalid", `"${installation}" is no installation id: expected 4 to 64 hexadecimal digits`);
}

/**
 * The entry in its one form (hardware address in lower case, addresses in order, each once). Throws VolantError `invalid` for anything that
 * the rules could not hold to: nothing of it reaches nft unchecked.
 */
export function checkEntry(entry: PolicyEntry): PolicyEntry {
  const { vmId, tap, mode, antiSpoof } = entry;
  const mac = entry.mac.toLowerCase();
  if (!Number.isSafeInteger(vmId) || vmId < 1) refuse(entry, "has no valid id: expected a whole number above 0");
  if (!isHoldableTap(tap)) refuse(entry, `names a tap that rules can't name: ${HOLDABLE_NAMES}`);
  if (!/^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/.test(mac)) refuse(entry, `has no valid MAC: "${entry.mac}"`);
  // The lowest bit of the first byte marks a group address (IEEE 802), which no sender has.
  if ((Number.parseInt(mac.slice(0, 2), 16) & 1) === 1 || mac === "00:00:00:00:00:00") {
    refuse(entry, `has the MAC ${mac}, which no sender can have`);
  }
  if (mode !== "bridged" && mode !== "dhcp") refuse(entry, `has the unknown mode "${String(mode)}"`);
  if (typeof antiSpoof !== "boolean") refuse(entry, "does not say whether it guards: expected true or false");
  for (const address of entry.addresses) {
    if (!isHostAddress(address)) {
      refuse(entry, `has the address "${address}": expected an IPv4 address that a guest can have`);
    }
  }
  const { leaseSeconds } = entry;
  if (leaseSeconds !== undefined && !(Number.isInteger(leaseSeconds) && leaseSeconds >= 0 && leaseSeconds < 2 ** 32)) {
    refuse(entry, `has a lease of ${leaseSeconds} seconds: expected a whole number of 32 bits`);
  }
  const lease = leaseSeconds === undefined ? {} : { leaseSeconds };
  return { vmId, tap, mac, mode, addresses: [...new Set(entry.addresses)].toSorted(), ...lease, antiSpoof };
}

/** Checks entries that are to hold at once. No two may share a VM or a tap: which of them would hold? */
export function checkEntries(entries: readonly PolicyEntry[]): PolicyEntry[] {
  const checked = entries.map(checkEntry);
  for (const [what, keyOf] of [
    ["VM", (entry: PolicyEntry) => String(entry.vmId)],
    ["tap", (entry: PolicyEntry) => entry.tap],
  ] as const) {
    const seen = new Set<string>();
    for (const key of checked.map(keyOf)) {
      if (seen.has(key)) throw new VolantError("invalid", `two policies for the ${what} ${key}: expected one`);
      seen.add(key);
    }
  }
  return checked;
}

/** The mark on everything that belongs to a VM's entry: the same as its tap's alias, and with an address for how long it is leased. */
export function entryMark(installation: string, vmId: number, leaseSeconds?: number): string {
  return `volant:${installation}:${vmId}${leaseSeconds === undefined ? "" : ` lease ${leaseSeconds}`}`;
}

/** What a mark says. */
export interface EntryMark {
  readonly installation: string;
  readonly vmId: number;
  readonly leaseSeconds: number | undefined;
}

/** The installation and the VM that a mark names, or undefined when it is no mark of any installation. */
export function readMark(mark: string | undefined): EntryMark | undefined {
  const match = /^volant:([0-9a-f]{4,64}):([1-9]\d{0,15})(?: lease (\d{1,10}))?$/.exec(mark ?? "");
  const [, installation, vmId, leaseSeconds] = match ?? [];
  if (installation === undefined) return undefined;
  return {
    installation,
    vmId: Number(vmId),
    leaseSeconds: leaseSeconds === undefined ? undefined : Number(leaseSeconds),
  };
}
