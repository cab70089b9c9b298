/** Where a request carries its key, and where it must not. Pure. */
import type { IncomingHttpHeaders } from "node:http";
import { SOCKET_KEY_PREFIX, VolantError } from "@volant/contract";
import type { Verdict } from "./api-config.ts";

/** The token of `Authorization: Bearer`. */
export function bearerToken(authorization: unknown): string | undefined {
  return typeof authorization === "string" ? /^Bearer +(\S.*)$/i.exec(authorization)?.[1] : undefined;
}

/** The key that a request was sent with. */
export function presentedKey(headers: Readonly<Record<string, unknown>>): string | undefined {
  const own = headers["x-volant-api-key"];
  return typeof own === "string" ? own : bearerToken(headers["authorization"]);
}

/** The key that a WebSocket of a browser offers among its subprotocols. */
function offeredKey(protocol: string): string | undefined {
  if (!protocol.startsWith(SOCKET_KEY_PREFIX)) return undefined;
  return Buffer.from(protocol.slice(SOCKET_KEY_PREFIX.length), "base64url").toString("utf8");
}

function protocolsOf(headers: IncomingHttpHeaders): string[] {
  return (headers["sec-websocket-protocol"] ?? "").split(/\s*,\s*/);
}

/** The headers, with the key that a browser has put among the subprotocols in its usual place. */
export function withSocketKey(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const key = protocolsOf(headers)
    .map(offeredKey)
    .find((offered) => offered !== undefined);
  if (key === undefined || headers["x-volant-api-key"] !== undefined) return headers;
  return { ...headers, "x-volant-api-key": key };
}

/** The subprotocols without any that carries a key; undefined where none is left. */
export function protocolsWithoutKeys(headers: IncomingHttpHeaders): string | undefined {
  const kept = protocolsOf(headers).filter((protocol) => protocol !== "" && !protocol.startsWith(SOCKET_KEY_PREFIX));
  return kept.length === 0 ? undefined : kept.join(", ");
}

/** What programs call a key in a URL, without case and punctuation. */
const KEY_NAMES = new Set([
  "key",
  "apikey",
  "volantapikey",
  "xvolantapikey",
  "accesstoken",
  "token",
  "authorization",
  "bearer",
]);

/** What is shorter is no key that anybody should have, and may well be something else. */
const LEAST_KEY_LENGTH = 8;

function fieldsOf(url: string): URLSearchParams {
  const at = url.indexOf("?");
  return new URLSearchParams(at < 0 ? "" : url.slice(at + 1));
}

function refusal(): VolantError {
  return new VolantError("invalid", "query: a key must not stand in a URL, which logs and histories keep", {
    hint: "send it as X-Volant-API-Key or Authorization: Bearer, and revoke a key that was sent so",
  });
}

/** Refuses a field of this API's own URLs that is called like a key. A workload's fields may be called as it likes. */
export function checkQueryNames(url: string): Verdict {
  const isNamed = [...fieldsOf(url).keys()].some((name) => KEY_NAMES.has(name.toLowerCase().replaceAll(/[^a-z]/g, "")));
  return isNamed ? refusal() : undefined;
}

/** Refuses a key of this API as a field's value, whoever the URL is for. For clients that were let in: others could try keys with it. */
export function checkQueryValues(url: string, isKey: (text: string) => boolean): Verdict {
  const isThere = [...fieldsOf(url).values()].some((value) => value.length >= LEAST_KEY_LENGTH && isKey(value));
  return isThere ? refusal() : undefined;
}
