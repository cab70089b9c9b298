/** The key that leaves a console. Pure. */
import { InvalidArgumentError } from "commander";

/** A control character, by the number that its key sends; undefined: no key does. */
export type EscapeKey = number | undefined;

/** Ctrl-], as telnet(1) and virsh(1) have it. */
export const DEFAULT_ESCAPE: EscapeKey = 0x1d;

/** `^]` or `ctrl-]` for Ctrl and that key; `none`. */
export function escapeKey(text: string): EscapeKey {
  if (text.toLowerCase() === "none") return undefined;
  const key = /^(?:\^|ctrl-)([@-_a-z])$/i.exec(text)?.[1];
  // ASCII: a control character is its key's with the upper bits gone.
  if (key !== undefined) return key.toUpperCase().charCodeAt(0) & 0x1f;
  throw new InvalidArgumentError('It must be a control key such as "^]" or "ctrl-a", or none.');
}

/** How people write the key. */
export function keyName(key: number): string {
  return `Ctrl-${String.fromCharCode(key | 0x40)}`;
}

/** What of some typed bytes comes before the key, and whether that is among them. */
export function beforeEscape(
  bytes: Uint8Array,
  key: EscapeKey,
): { readonly typed: Uint8Array; readonly isLeft: boolean } {
  const at = key === undefined ? -1 : bytes.indexOf(key);
  return at < 0 ? { typed: bytes, isLeft: false } : { typed: bytes.subarray(0, at), isLeft: true };
}
