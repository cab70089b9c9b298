import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import fc from "fast-check";
import { checkKeys, parseConfig } from "./config.ts";

test("without any variable, the defaults are the contract's", () => {
  const config = parseConfig({}, "/home/u");
  assert.equal(config.listenHost, "127.0.0.1");
  assert.equal(config.listenPort, 7777);
  assert.equal(config.managed.bridge, "vbr0");
  assert.deepEqual(config.managed.pool, { subnet: { network: 0xc0a87f00, prefixLength: 24 }, gateway: 0xc0a87f01 });
  assert.equal(config.runtimeDir, "/home/u/.volant/run");
  assert.equal(config.logDir, "/home/u/.volant/logs");
  assert.equal(config.dbPath, "/home/u/.volant/state.db");
  assert.equal(config.workDir, "/var/lib/volant");
  assert.equal(config.bzImagePath, "/var/lib/volant/kernel/bzImage");
  assert.equal(config.network, undefined);
  assert.equal(config.startTimeoutMs, undefined);
  assert.equal(parseConfig({}, "/home/u").bridgePorts, undefined);
  assert.equal(parseConfig({ VOLANT_BRIDGE_PORTS: "64" }, "/home/u").bridgePorts, 64);
  assert.equal(parseConfig({ VOLANT_START_TIMEOUT_MS: "5000" }, "/home/u").startTimeoutMs, 5000);
  assert.equal(config.hangTimeoutMs, undefined);
  assert.equal(parseConfig({ VOLANT_HANG_TIMEOUT_MS: "0" }, "/home/u").hangTimeoutMs, 0);
  assert.deepEqual([config.stopTimeoutMs, config.restartResetMs], [undefined, undefined]);
  const times = { VOLANT_STOP_TIMEOUT_MS: "300000", VOLANT_RESTART_RESET_MS: "1" };
  const { stopTimeoutMs, restartResetMs } = parseConfig(times, "/home/u");
  assert.deepEqual([stopTimeoutMs, restartResetMs], [300_000, 1]);
  assert.equal(parseConfig({ VOLANT_LOG_FILE_KIB: "64" }, "/home/u").logFileBytes, 65_536);
  const kept = parseConfig({ VOLANT_EVENTS_KEEP: "500", VOLANT_EVENTS_KEEP_DAYS: "2" }, "/home/u").eventsKept;
  assert.deepEqual(kept, { count: 500, ageMs: 172_800_000 });
  assert.deepEqual(config.vsock, { wanted: "off", program: undefined });
});

test("a bad value is one line that names its variable", () => {
  const cases: [variable: string, value: string][] = [
    ["VOLANT_API_LISTEN", "nowhere"],
    ["VOLANT_API_LISTEN", "127.0.0.1:70000"],
    ["VOLANT_API_INSECURE", "yes"],
    ["VOLANT_API_SOCKET", "api.sock"],
    ["VOLANT_API_RATE", "0"],
    ["VOLANT_AUDIT_FILE_KIB", "0"],
    ["VOLANT_TRUSTED_PROXIES", "proxy"],
    ["VOLANT_TLS_CERT", "/etc/cert.pem"],
    ["VOLANT_TLS_KEY", "/etc/key.pem"],
    ["VOLANT_API_ALLOW_CIDR", "10.0.0.0/33"],
    ["VOLANT_API_ALLOW_CIDR", "10.0.0/8"],
    ["VOLANT_CORS_ORIGINS", "https://a.example/path"],
    ["VOLANT_CORS_ORIGINS", "a.example"],
    ["VOLANT_BRIDGE", "a/b"],
    ["VOLANT_BRIDGE", "a-name-that-is-too-long"],
    ["VOLANT_SUBNET", "10.0.0.1/24"],
    ["VOLANT_HOST_IP", "10.0.0.1"],
    ["VOLANT_HOST_IP", "192.168.127.255"],
    ["VOLANT_HOST_IP", "x"],
    ["VOLANT_NETWORK", "cni"],
    ["VOLANT_ANTI_SPOOF", "maybe"],
    ["VOLANT_VSOCK", "yes"],
    ["VOLANT_DNS", "nine"],
    ["VOLANT_HANG_TIMEOUT_MS", "-1"],
    ["VOLANT_HANG_TIMEOUT_MS", "30s"],
    ["VOLANT_STOP_TIMEOUT_MS", "0"],
    ["VOLANT_RESTART_RESET_MS", "1m"],
    ["VOLANT_BRIDGE_PORTS", "3"],
    ["VOLANT_BRIDGE_PORTS", "1024"],
    ["VOLANT_BRIDGE_PORTS", "many"],
    ["VOLANT_EVENTS_KEEP", "0"],
    ["VOLANT_LOG_FILE_KIB", "1M"],
    ["VOLANT_EVENTS_KEEP", "many"],
    ["VOLANT_EVENTS_KEEP_DAYS", "1.5"],
    ["VOLANT_EVENTS_KEEP_DAYS", "36501"],
    ["VOLANT_START_TIMEOUT_MS", "0"],
    ["VOLANT_START_TIMEOUT_MS", "60s"],
    ["VOLANT_START_TIMEOUT_MS", "2147483648"],
    ["VOLANT_DNS", "1.1.1.1,2.2.2.2,3.3.3.3,4.4.4.4"],
  ];
  for (const [variable, value] of cases) {
    assert.throws(
      () => parseConfig({ [variable]: value }, "/root"),
      (error: unknown) => {
        assert.ok(error instanceof VolantError && error.code === "invalid");
        assert.match(error.message, new RegExp(`^${variable} .+$`));
        return true;
      },
      `${variable}=${value}`,
    );
  }
});

test("others may reach the API only with a key", () => {
  const start = (env: Readonly<Record<string, string>>, keyCount = 0) =>
    checkKeys(parseConfig({ VOLANT_API_LISTEN: "0.0.0.0:7777", ...env }, "/root"), keyCount);
  for (const listen of ["0.0.0.0:7777", ":7777", "192.0.2.1:7777", "[2001:db8::1]:7777"]) {
    const named = /^VolantError: VOLANT_API_LISTEN is .*, which others can reach.*: set VOLANT_API_KEY/;
    assert.throws(() => start({ VOLANT_API_LISTEN: listen }), named, listen);
  }
  start({ VOLANT_API_KEY: "k" });
  start({}, 1);
  start({ VOLANT_API_INSECURE: "allow-anyone" });
  for (const listen of ["127.0.0.9:1", "[::1]:1", "localhost:1"]) start({ VOLANT_API_LISTEN: listen });
  assert.throws(
    () => start({ VOLANT_API_LISTEN: "127.0.0.1:1", VOLANT_TRUSTED_PROXIES: "127.0.0.1" }),
    /^VolantError: VOLANT_TRUSTED_PROXIES is 127\.0\.0\.1, by which others can reach the API/,
  );
});

test("the API's Unix socket is in the runtime folder unless it is named, or switched off", () => {
  const socketPath = (env: Readonly<Record<string, string>>) => parseConfig(env, "/root").socketPath;
  assert.equal(socketPath({}), "/root/.volant/run/api.sock");
  assert.equal(socketPath({ VOLANT_RUNTIME_DIR: "/run/volant" }), "/run/volant/api.sock");
  assert.equal(socketPath({ VOLANT_API_SOCKET: "/run/volant.sock" }), "/run/volant.sock");
  assert.equal(socketPath({ VOLANT_API_SOCKET: "off" }), undefined);
});

test("TLS takes both files, the rate a number or off, the audit log a size", () => {
  const config = parseConfig({ VOLANT_TLS_CERT: "/c", VOLANT_TLS_KEY: "/k", VOLANT_AUDIT_FILE_KIB: "64" }, "/root");
  assert.deepEqual(config.tls, { certPath: "/c", keyPath: "/k" });
  assert.equal(config.auditFileBytes, 65_536);
  assert.equal(config.ratePerSecond, 1000);
  assert.equal(parseConfig({ VOLANT_API_RATE: "5" }, "/root").ratePerSecond, 5);
  assert.equal(parseConfig({ VOLANT_API_RATE: "off" }, "/root").ratePerSecond, undefined);
});

test("lists take commas and spaces; an empty variable is none", () => {
  const config = parseConfig(
    {
      VOLANT_DNS: "9.9.9.9, 1.1.1.1",
      VOLANT_CORS_ORIGINS: "https://a.example,http://localhost:3000",
      VOLANT_API_KEY: "",
      VOLANT_API_ALLOW_CIDR: "10.0.0.0/8,::1/128",
    },
    "/root",
  );
  assert.deepEqual(config.nameservers, ["9.9.9.9", "1.1.1.1"]);
  assert.deepEqual(config.corsOrigins, ["https://a.example", "http://localhost:3000"]);
  assert.deepEqual(config.allowCidrs, ["10.0.0.0/8", "::1/128"]);
  assert.equal(config.apiKey, undefined);
});

test("LAN bridges are a list of names for links", () => {
  assert.deepEqual(parseConfig({}, "/root").lanBridges, []);
  assert.deepEqual(parseConfig({ VOLANT_LAN_BRIDGES: "br-lan, br0" }, "/root").lanBridges, ["br-lan", "br0"]);
  assert.throws(
    () => parseConfig({ VOLANT_LAN_BRIDGES: "br/lan" }, "/root"),
    /^VolantError: VOLANT_LAN_BRIDGES holds "br\/lan"/,
  );
});

test("no value of any variable makes anything but settings or one clear error", () => {
  const variables = ["LISTEN", "ALLOW_CIDR", "ADVERTISE"].map((name) => `VOLANT_API_${name}`);
  const all = [...variables, "VOLANT_CORS_ORIGINS", "VOLANT_BRIDGE", "VOLANT_SUBNET", "VOLANT_HOST_IP", "VOLANT_DNS"];
  fc.assert(
    fc.property(fc.constantFrom(...all), fc.string(), (variable, value) => {
      try {
        parseConfig({ [variable]: value }, "/root");
      } catch (error) {
        assert.ok(error instanceof VolantError && error.code === "invalid");
        assert.ok(!error.message.includes("\n"));
      }
    }),
  );
});
