import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import fc from "fast-check";
import { parseConfig } from "./config.ts";

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
});

test("a bad value is one line that names its variable", () => {
  const cases: [variable: string, value: string][] = [
    ["VOLANT_API_LISTEN", "nowhere"],
    ["VOLANT_API_LISTEN", "127.0.0.1:70000"],
    ["VOLANT_API_LISTEN", "0.0.0.0:7777"],
    ["VOLANT_API_LISTEN", ":7777"],
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
    ["VOLANT_DNS", "nine"],
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
  assert.throws(() => parseConfig({ VOLANT_API_LISTEN: "0.0.0.0:7777" }, "/root"), /set VOLANT_API_KEY/);
  const open = parseConfig({ VOLANT_API_LISTEN: "0.0.0.0:7777", VOLANT_API_KEY: "k" }, "/root");
  assert.equal(open.listenHost, "0.0.0.0");
  for (const listen of ["127.0.0.9:1", "[::1]:1", "localhost:1"]) {
    assert.equal(parseConfig({ VOLANT_API_LISTEN: listen }, "/root").listenPort, 1);
  }
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
