import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import fc from "fast-check";
import { encodeGuestConfig } from "./guest-config.ts";
import { readGuestStatus } from "./guest-status.ts";
import { readLogEntry } from "./log-entry.ts";

function golden(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`../../../../kestrel/golden/${name}`, import.meta.url), "utf8"));
}

test("a configuration is encoded as the golden one", () => {
  const text = encodeGuestConfig({
    configVersion: "42-7",
    hostname: "web-1",
    network: {
      mode: "bridged",
      address: "192.168.127.2",
      prefixLength: 24,
      gateway: "192.168.127.1",
      mac: "02:76:6f:00:00:2a",
      mtu: 1500,
    },
    nameservers: ["9.9.9.9", "2620:fe::fe"],
    search: ["example.org"],
    env: { GREETING: "grüß dich" },
    workload: {
      baseUrl: "http://127.0.0.1:8080",
      entrypoint: ["/bin/httpd", "-f", "-p", "8080"],
      env: { MODE: "test" },
      workdir: "/srv",
      restart: "on-failure",
    },
    healthCheck: { endpoint: "/healthz", timeoutMs: 2000 },
    shutdownTimeoutMs: 4000,
  });
  assert.deepEqual(JSON.parse(text), golden("config.json"));
});

test("golden statuses are read", () => {
  const [first, second] = golden("status.json") as unknown[];
  const status = readGuestStatus(first);
  assert.deepEqual(status, {
    configVersion: "42-7",
    hostname: "web-1",
    generation: 3,
    network: {
      applied: true,
      mode: "bridged",
      interface: "eth0",
      address: "192.168.127.2",
      prefixLength: 24,
      gateway: "192.168.127.1",
    },
    workload: { state: "exited", code: 1, restartInMs: 200, restarts: 2 },
    health: { state: "unhealthy", reason: "the health check answered 503" },
    bootId: "6f1c1b0e-1111-4222-8333-444455556666",
    uptimeMs: 1234,
    memory: { totalKib: 100, availableKib: 60, agentKib: 2100 },
  });
  const fresh = readGuestStatus(second);
  assert.equal(fresh?.configVersion, undefined);
  assert.deepEqual(fresh?.workload, { state: "waiting_for_config", restarts: 0 });
});

test("golden leases are read, and what of one is unfit is left out", () => {
  const [, , bound, waiting] = golden("status.json") as Record<string, Record<string, unknown>>[];
  assert.deepEqual(readGuestStatus(bound)?.network, {
    applied: true,
    mode: "dhcp",
    interface: "eth0",
    address: "10.0.0.5",
    prefixLength: 24,
    lease: {
      phase: "renewing",
      server: "10.0.0.1",
      nameservers: ["9.9.9.9"],
      domain: "lan.example",
      obtainedAt: new Date("2000-02-29T00:00:00.000Z"),
      renewsAt: new Date("2000-02-29T00:01:00.000Z"),
      rebindsAt: new Date("2000-02-29T00:01:45.000Z"),
      expiresAt: new Date("2000-02-29T00:02:00.000Z"),
    },
  });
  assert.deepEqual(readGuestStatus(waiting)?.network.lease, {
    phase: "waiting_for_lease",
    nameservers: [],
    reason: "no DHCP server has answered",
  });
  const lease = (changes: object) =>
    readGuestStatus({ ...bound, network: { applied: true, lease: { state: "bound", ...changes } } })?.network.lease;
  assert.equal(lease({ state: "stolen" }), undefined);
  const odd = lease({ nameservers: [1, "a\n", "1.1.1.1", "2.2.2.2"], domain: "a b", expires_at: "soon", server: {} });
  assert.deepEqual(odd, { phase: "bound", nameservers: ["1.1.1.1"] });
});

test("a status of a hostile guest is refused, or disarmed where it is text for people", () => {
  const [first] = golden("status.json") as Record<string, unknown>[];
  const changed = (change: object) => readGuestStatus({ ...first, ...change });
  assert.equal(changed({ hostname: "a\u001b[2J" }), undefined);
  assert.equal(changed({ generation: -1 }), undefined);
  assert.equal(changed({ workload: { state: "running", pid: "1", restarts: 0 } }), undefined);
  assert.equal(changed({ health: { state: "perfect" } }), undefined);
  const health = changed({ health: { state: "unhealthy", reason: `\u001b]0;${"x".repeat(9999)}` } })?.health;
  assert.ok(health?.state === "unhealthy");
  assert.ok(health.reason.startsWith("\ufffd]0;") && health.reason.length === 1024);
});

test("log lines and gaps are told apart, and anything else is left out", () => {
  const line = { seq: 3, stream: "stdout", line: "a\u001b[1m", timestamp: "2026-01-02T03:04:05.678Z" };
  assert.deepEqual(readLogEntry(line), { kind: "line", ...line, truncated: false });
  assert.deepEqual(readLogEntry({ gap: { from: 1, to: 9 } }), { kind: "gap", from: 1, to: 9 });
  for (const change of [
    { seq: 0.5 },
    { stream: "x" },
    { line: 5 },
    { timestamp: "now" },
    { line: "x".repeat(99_999) },
  ]) {
    assert.equal(readLogEntry({ ...line, ...change }), undefined);
  }
  assert.equal(readLogEntry({ gap: { from: 9, to: 1 } }), undefined);
});

test("no message of a guest throws", () => {
  const anything = fc.oneof(fc.anything(), fc.constant(JSON.parse('{"__proto__":{"seq":1}}')));
  fc.assert(
    fc.property(anything, (message) => {
      readGuestStatus(message);
      readLogEntry(message);
    }),
  );
});
