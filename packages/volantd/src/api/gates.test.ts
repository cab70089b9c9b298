/** Who asks, and what it may do: the decisions behind every request. */
import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import test from "node:test";
import { VolantError, type Scope } from "@volant/contract";
import type { ApiConfig } from "./api-config.ts";
import { parseCidrs } from "./access.ts";
import { clientAddress, forwardedOf } from "./client-address.ts";
import { checkScope, createGates, keyCheck, type Gates } from "./gates.ts";
import { RateLimit } from "./rate-limit.ts";
import { createStandIn } from "./testing/stand-in.ts";

const config: ApiConfig = { listenHost: "127.0.0.1", listenPort: 7777, allowCidrs: [], corsOrigins: [] };

interface Tried {
  readonly gates: Gates;
  readonly keys: ReturnType<typeof createStandIn>["useCases"]["keys"];
  /** The client's name, or the code of what refused it. */
  ask(headers?: Readonly<Record<string, string>>, from?: { isLocal?: boolean; address?: string; url?: string }): string;
  passTime(ms: number): void;
}

function gatesOf(changes: Partial<ApiConfig> = {}): Tried {
  const { keys } = createStandIn().useCases;
  let nowMs = 0;
  const gates = createGates({
    config: { ...config, ...changes },
    keys,
    isLocal: () => false,
    nowMs: () => nowMs,
  });
  return {
    gates,
    keys,
    passTime: (ms) => void (nowMs += ms),
    ask(headers = {}, { isLocal = false, address = "127.0.0.1", url = "/api/v1/vms" } = {}) {
      try {
        const forwarded = { for: address, proto: "http" } as const;
        return gates.identify({ isLocal, address, forwarded }, headers, url, true).name;
      } catch (error) {
        return (error as VolantError).code;
      }
    },
  };
}

const withKey = (key: string) => ({ "x-volant-api-key": key });

test("a key passes in either header; none, a wrong, longer, shorter or doubled one does not", () => {
  const { ask } = gatesOf({ apiKey: "s3cret" });
  assert.equal(ask(withKey("s3cret")), "VOLANT_API_KEY");
  assert.equal(ask({ authorization: "Bearer s3cret" }), "VOLANT_API_KEY");
  assert.equal(ask({ authorization: "bearer s3cret" }), "VOLANT_API_KEY");
  for (const headers of [
    {},
    withKey(""),
    withKey("s3cre"),
    withKey("s3crets"),
    withKey("s3cret, s3cret"),
    { authorization: "Basic s3cret" },
    { authorization: "s3cret" },
    { ...withKey("wrong"), authorization: "Bearer s3cret" },
  ]) {
    assert.equal(ask(headers), "unauthorized", JSON.stringify(headers));
  }
});

test("without any key nobody is asked for one on loopback; from the first one on everybody is, but root on the Unix socket", () => {
  const { ask, keys } = gatesOf();
  assert.equal(ask(), "anyone");
  const { key } = keys.create({ name: "ci", scope: "operate" });
  assert.equal(ask(), "unauthorized");
  assert.equal(ask(withKey(key)), "ci");
  assert.equal(ask({}, { isLocal: true }), "root");
  assert.equal(ask(withKey(key), { isLocal: true }), "ci", "who gives a key is who has it");
  assert.equal(ask(withKey("wrong"), { isLocal: true }), "unauthorized");
  keys.revoke("ci");
  assert.equal(ask(), "anyone");
});

test("where others can reach the API, no key left means that nobody is let in, and not that everybody is", () => {
  const { ask } = gatesOf({ keyNeeded: true });
  assert.equal(ask(), "unauthorized");
  assert.equal(ask({}, { isLocal: true }), "root");
});

test("a key does what its scope and those before it allow", () => {
  const allowed = (held: Scope, needed: Scope) => checkScope({ name: "k", scope: held }, needed) === undefined;
  const scopes = ["read", "operate", "admin"] as const;
  const table = scopes.map((held) => scopes.map((needed) => allowed(held, needed)));
  assert.deepEqual(table, [
    [true, false, false],
    [true, true, false],
    [true, true, true],
  ]);
});

test("a connection that has lost its address is not taken for the Unix socket's", () => {
  const { gates } = gatesOf({ apiKey: "k" });
  const request = { headers: {}, socket: { remoteAddress: undefined } as Socket } as IncomingMessage;
  const origin = gates.origin(request);
  assert.deepEqual([origin.isLocal, origin.address], [false, "unknown"]);
});

test("VOLANT_API_KEY can't be guessed by trying: after some wrong keys an address has to wait; other addresses, and keys that were made, don't", () => {
  const tried = gatesOf({ apiKey: "right-key" });
  const { key } = tried.keys.create({ name: "made", scope: "read" });
  const answers = Array.from({ length: 25 }, () => tried.ask(withKey("wrong")));
  assert.deepEqual([answers[0], answers[19], answers[20]], ["unauthorized", "unauthorized", "rate_limited"]);
  assert.equal(tried.ask(withKey("right-key")), "rate_limited", "or the right one could be told among many");
  assert.equal(tried.ask(withKey(key)), "made", "nobody keeps others of his address out by guessing");
  assert.equal(tried.ask(withKey("right-key"), { address: "127.0.0.2" }), "VOLANT_API_KEY");
  tried.passTime(1000);
  assert.equal(tried.ask(withKey("right-key")), "VOLANT_API_KEY");
});

test("each key, and each address without one, may ask so often; root may always", () => {
  const tried = gatesOf({ ratePerSecond: 2 });
  const { key } = tried.keys.create({ name: "a", scope: "read" });
  const other = tried.keys.create({ name: "b", scope: "read" }).key;
  const ask = (given: string) => tried.ask(withKey(given));
  assert.deepEqual(
    Array.from({ length: 5 }, () => tried.ask()),
    ["unauthorized", "unauthorized", "unauthorized", "unauthorized", "rate_limited"],
    "who is refused has asked, too",
  );
  assert.deepEqual(
    Array.from({ length: 5 }, () => ask(key)),
    ["a", "a", "a", "a", "rate_limited"],
  );
  assert.equal(ask(other), "b");
  for (let count = 0; count < 20; count += 1) assert.equal(tried.ask({}, { isLocal: true }), "root");
  tried.passTime(500);
  assert.deepEqual([ask(key), ask(key)], ["a", "rate_limited"]);
});

test("a bucket says how long to wait, and many clients don't make the memory grow without end", () => {
  let nowMs = 0;
  const limit = new RateLimit({ perSecond: 0.1, burst: 1 }, () => nowMs);
  assert.deepEqual([limit.take("a"), limit.take("a"), limit.look("a")], [0, 10, 10]);
  nowMs = 4000;
  assert.equal(limit.look("a"), 6);
  for (let client = 0; client < 20_000; client += 1) limit.take(String(client));
  assert.equal(limit.take("a"), 0, "what was forgotten begins anew");
});

test("a key in the query of this API's own URLs is refused, whatever it is called; a workload's fields are its own", () => {
  const { ask, keys, gates } = gatesOf();
  for (const name of ["key", "api_key", "apikey", "API-Key", "access_token", "token", "X-Volant-API-Key"]) {
    assert.equal(ask({}, { url: `/api/v1/vms?${name}=x` }), "invalid", name);
  }
  assert.equal(ask({}, { url: "/api/v1/vms?q=token&limit=5" }), "anyone");
  const { key } = keys.create({ name: "ci", scope: "admin" });
  const origin = { isLocal: false, address: "127.0.0.1", forwarded: { for: "127.0.0.1", proto: "http" } } as const;
  const proxied = (query: string) => gates.identify(origin, withKey(key), `/api/v1/vms/web/agent/x${query}`, false);
  assert.equal(proxied("?key=of-the-workload").name, "ci");
  assert.throws(() => proxied(`?q=${key}`), /a key must not stand in a URL/);
});

test("the comparison of keys is one of digests, which all have the same length", () => {
  const check = keyCheck("k".repeat(40));
  for (const text of ["", "k", "k".repeat(39), "k".repeat(41), "k".repeat(100_000), "é", "\u0000"]) {
    assert.equal(check(text), false, text.slice(0, 50));
  }
  assert.equal(check("k".repeat(40)), true);
  assert.equal(keyCheck(undefined)(""), false);
});

test("an address in X-Forwarded-For counts only from a proxy that is named, and from the right", () => {
  const proxies = parseCidrs("VOLANT_TRUSTED_PROXIES", ["10.0.0.0/8"]);
  const cases: [peer: string | undefined, forwarded: string | undefined, address: string][] = [
    ["192.0.2.1", "127.0.0.1", "192.0.2.1"],
    ["10.0.0.1", undefined, "10.0.0.1"],
    ["::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"],
    ["10.0.0.1", "127.0.0.1, 198.51.100.7, 10.0.0.2", "198.51.100.7"],
    ["10.0.0.1", "198.51.100.7, nonsense", "unknown"],
    ["10.0.0.1", "10.0.0.3", "10.0.0.3"],
    [undefined, "127.0.0.1", "unknown"],
  ];
  for (const [peer, forwarded, address] of cases) assert.equal(clientAddress(proxies, peer, forwarded), address);
});

test("a workload is told of no address and scheme that nobody vouches for", () => {
  const proxies = parseCidrs("VOLANT_TRUSTED_PROXIES", ["10.0.0.1"]);
  const claimed = { "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https" };
  assert.deepEqual(forwardedOf(proxies, "192.0.2.1", claimed, false), { for: "192.0.2.1", proto: "http" });
  assert.deepEqual(forwardedOf(proxies, "10.0.0.1", claimed, false), { for: "127.0.0.1, 10.0.0.1", proto: "https" });
  assert.equal(forwardedOf(proxies, "192.0.2.1", {}, true).proto, "https");
});
