/**
 * The gates in front of every request, in their order: the client's address, Host and Origin; a key where it must not be; how often it asks; its key; what
 * that key may do.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { scopeAllows, VolantError, type Scope } from "@volant/contract";
import type { KeyUseCases } from "../engine/use-cases.ts";
import { checkHost, checkOrigin, checkPeer, parseCidrs, type OriginDecision } from "./access.ts";
import type { ApiConfig, Verdict } from "./api-config.ts";
import { clientAddress, forwardedOf, type Forwarded } from "./client-address.ts";
import { checkQueryNames, checkQueryValues, presentedKey } from "./credentials.ts";
import { RateLimit } from "./rate-limit.ts";

/** Where a request comes from. */
export interface Origin {
  /** By the Unix socket. */
  readonly isLocal: boolean;
  /** The client's address, or `unix`. */
  readonly address: string;
  readonly forwarded: Forwarded;
}

/** On whose behalf a request is. */
export interface Client {
  /** A key's name; `VOLANT_API_KEY`; `root` by the Unix socket; `anyone` where no key is asked for. */
  readonly name: string;
  readonly scope: Scope;
  /** Of a key that can be revoked. */
  readonly keyId?: number;
}

export interface Gates {
  origin(request: IncomingMessage): Origin;
  /** Peer address, Host and Origin. */
  address(origin: Origin, headers: IncomingHttpHeaders): OriginDecision;
  /**
   * Who asks, once it may ask again.
   *
   * @param isOwn whether the URL is of this API, and not of a workload
   * @throws VolantError `unauthorized`, `rate_limited`, `invalid` for a key in the URL
   */
  identify(origin: Origin, headers: IncomingHttpHeaders, url: string, isOwn: boolean): Client;
  /** Counts a request that needs no key. @throws VolantError `rate_limited` */
  count(origin: Origin): void;
  /** Whether a text is a key of this API, so that it reaches no guest and no log. */
  isKey(text: string): boolean;
}

export interface GateOptions {
  readonly config: ApiConfig;
  readonly keys: KeyUseCases;
  /** Whether a connection came by the Unix socket. */
  readonly isLocal: (socket: Socket) => boolean;
  readonly nowMs: () => number;
}

/** Wrong keys of one address: nobody mistypes more often than this, and guessing takes time. */
const FAILURES = { perSecond: 1, burst: 20 } as const;

/** Who asks where no key is asked for. */
const ANYONE = "anyone";

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** A check for one key. Digests of equal length are compared in constant time, so neither length nor content leaks. */
export function keyCheck(key: string | undefined): (given: string) => boolean {
  if (key === undefined) return () => false;
  const expected = digest(key);
  return (given) => timingSafeEqual(digest(given), expected);
}

/** Error of a client that asks too often, with the seconds that it should wait. */
export class TooOften extends VolantError {
  readonly retryAfterSeconds: number;

  constructor(message: string, retryAfterSeconds: number) {
    super("rate_limited", message, { hint: `try again in ${retryAfterSeconds} s` });
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** Whether a client may do what asks for `needed`. */
export function checkScope(client: Client, needed: Scope): Verdict {
  if (scopeAllows(client.scope, needed)) return undefined;
  return new VolantError(
    "forbidden",
    `this needs a key with the scope ${needed}, and "${client.name}" has ${client.scope}`,
    {
      hint: `an administrator makes one: volar keys create <name> --scope ${needed}`,
    },
  );
}

/** @throws VolantError `invalid` for a network that is none */
export function createGates({ config, keys, isLocal, nowMs }: GateOptions): Gates {
  const allowed = parseCidrs("VOLANT_API_ALLOW_CIDR", config.allowCidrs);
  const proxies = parseCidrs("VOLANT_TRUSTED_PROXIES", config.trustedProxies ?? []);
  const isOperatorsKey = keyCheck(config.apiKey);
  const { ratePerSecond } = config;
  // Twice as many at once: programs ask in bursts.
  const rate =
    ratePerSecond === undefined
      ? undefined
      : new RateLimit({ perSecond: ratePerSecond, burst: 2 * ratePerSecond }, nowMs);
  const failures = new RateLimit(FAILURES, nowMs);

  function count(who: string): void {
    const seconds = rate?.take(who) ?? 0;
    if (seconds === 0) return;
    throw new TooOften(`this client sends more than ${ratePerSecond} requests a second (VOLANT_API_RATE)`, seconds);
  }
  function holder(origin: Origin, headers: IncomingHttpHeaders): Client {
    const isKeyed = config.apiKey !== undefined || keys.count > 0;
    const key = presentedKey(headers);
    if (key === undefined || !isKeyed) {
      if (origin.isLocal) return { name: "root", scope: "admin" };
      if (!isKeyed && config.keyNeeded !== true) return { name: ANYONE, scope: "admin" };
      throw new VolantError("unauthorized", "this API needs a key, and the request has none", {
        hint: "send it as X-Volant-API-Key or Authorization: Bearer; with volar: --api-key or VOLANT_API_KEY",
      });
    }
    const found = keys.find(key);
    const isOperators = isOperatorsKey(key);
    if (found !== undefined) {
      keys.used(found.id);
      return { name: found.name, scope: found.scope, keyId: found.id };
    }
    // A key that a person chose can be guessed, so what is looked at is bounded; those that were made can't, and who has one is not kept out by who guesses.
    const seconds = failures.look(origin.address);
    if (seconds > 0) throw new TooOften("too many wrong keys came from this address", seconds);
    if (isOperators) return { name: "VOLANT_API_KEY", scope: "admin" };
    failures.take(origin.address);
    throw new VolantError("unauthorized", "the API key is wrong");
  }
  function isKey(text: string): boolean {
    const found = keys.find(text) !== undefined;
    return isOperatorsKey(text) || found;
  }

  return {
    origin(request) {
      const { headers, socket } = request;
      const peer = socket.remoteAddress;
      const forwarded = forwardedOf(proxies, peer, headers, "encrypted" in socket && socket.encrypted === true);
      if (isLocal(socket)) return { isLocal: true, address: "unix", forwarded };
      return { isLocal: false, address: clientAddress(proxies, peer, headers["x-forwarded-for"]), forwarded };
    },
    address(origin, headers) {
      const outside = origin.isLocal ? undefined : checkPeer(allowed, origin.address);
      const refusal = outside ?? checkHost(config, headers.host);
      return refusal === undefined ? checkOrigin(config, headers.origin, headers.host) : { verdict: refusal };
    },
    identify(origin, headers, url, isOwn) {
      const inUrl = isOwn ? checkQueryNames(url) : undefined;
      if (inUrl !== undefined) throw inUrl;
      let client: Client | undefined;
      try {
        client = holder(origin, headers);
      } finally {
        // Who is refused has asked, too, and uses up nobody's share but that of his address.
        const isKeyed = client !== undefined && client.name !== ANYONE;
        if (!origin.isLocal) count(isKeyed ? `key ${client?.keyId ?? client?.name}` : `address ${origin.address}`);
      }
      const refusal = checkQueryValues(url, isKey);
      if (refusal !== undefined) throw refusal;
      return client;
    },
    count: (origin) => (origin.isLocal ? undefined : count(`open ${origin.address}`)),
    isKey,
  };
}
