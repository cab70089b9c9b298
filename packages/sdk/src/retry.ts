/** Requests that may be sent again: what to do when one breaks off, and nobody knows how far it came. */

/** Pauses before each further attempt, in milliseconds: a volantd that is restarted answers again within a few seconds. */
export const RETRY_PAUSES_MS: readonly number[] = [250, 500, 1000, 2000, 4000];

/** Node's codes for a connection that never came about: nothing was sent. */
const NEVER_SENT: readonly unknown[] = [
  "ECONNREFUSED",
  "ENOENT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
];

/** Whether a request that fetch() failed with this error may have reached volantd. Browsers don't say. */
export function mayHaveArrived(error: unknown): boolean {
  if (!(error instanceof TypeError)) return false;
  const { cause } = error as { readonly cause?: { readonly code?: unknown } };
  return !NEVER_SENT.includes(cause?.code);
}

/** A key for one request: 32 hexadecimal digits at random. Of crypto, this is there in pages without TLS, too. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
