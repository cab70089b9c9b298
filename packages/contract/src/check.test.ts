import assert from "node:assert/strict";
import test from "node:test";
import type { TSchema } from "typebox";
import { checkSchema } from "./check.ts";
import { VolantError } from "./errors.ts";
import { Manifest } from "./manifest.ts";
import { CreateVmRequest } from "./vm.ts";
import { VmConfigPatch } from "./vm-config.ts";

function sentence(schema: TSchema, value: unknown): string {
  try {
    checkSchema(schema, value, "request body");
  } catch (error) {
    assert.ok(error instanceof VolantError);
    assert.equal(error.code, "invalid");
    return error.message;
  }
  return "valid";
}

const manifest = { name: "hello", version: "1", resources: { cpu_cores: 1, memory_mb: 128 }, workload: {} };

const cases: readonly [string, TSchema, unknown, string][] = [
  ["a body that is no object", CreateVmRequest, [], "request body must be an object"],
  ["a missing field", CreateVmRequest, {}, 'request body lacks "name"'],
  ["an unknown field", CreateVmRequest, { name: "a", cpus: 2 }, 'request body: unknown field "cpus"'],
  [
    "an unknown field deep inside",
    CreateVmRequest,
    { name: "a", config: { network: { mod: "dhcp" } } },
    'request body: unknown field "config.network.mod"',
  ],
  [
    "text for a number",
    CreateVmRequest,
    { name: "a", cpu_cores: "2" },
    'request body: field "cpu_cores" must be a whole number',
  ],
  [
    "a name with a slash",
    CreateVmRequest,
    { name: "a/b" },
    'VM name "a/b" must not contain "/": use letters, digits, ".", "_" and "-"',
  ],
  [
    "a name of 300 bytes",
    CreateVmRequest,
    { name: "a".repeat(300) },
    "the VM name is 300 characters long, and at most 63 are allowed",
  ],
  [
    "a plugin's name with a space, deep inside",
    CreateVmRequest,
    { name: "a", config: { plugin: "b c" } },
    'plugin name "b c" must not contain " ": use letters, digits, ".", "_" and "-"',
  ],
  ["null in a patch", VmConfigPatch, { network: null, runtime: null }, "valid"],
  [
    "text for an object in a patch",
    VmConfigPatch,
    { network: "dhcp" },
    'request body: field "network" must be an object',
  ],
  [
    "an unknown field inside a patch",
    VmConfigPatch,
    { network: { moed: "dhcp" } },
    'request body: unknown field "network.moed"',
  ],
  [
    "text for a number inside a patch",
    VmConfigPatch,
    { resources: { cpu_cores: "2" } },
    'request body: field "resources.cpu_cores" must be a whole number',
  ],
  [
    "a name without a kind",
    CreateVmRequest,
    { name: "a", config: { expose: [{ name: "-", port: 1 }] } },
    'request body: field "config.expose.0.name" must be letters, digits, ".", "_" and "-", starting with a letter or digit, and at most 63 characters long',
  ],
  [
    "a checksum in upper case",
    Manifest,
    { ...manifest, initramfs: { url: "x", checksum: "sha256:AB" } },
    'request body: field "initramfs.checksum" must be sha256: and 64 lower-case hexadecimal digits',
  ],
  [
    "an environment variable name that no shell takes",
    CreateVmRequest,
    { name: "a", config: { env: { "1A": "x" } } },
    'request body: unknown field "config.env.1A"',
  ],
  [
    "a word that is none of the allowed ones",
    CreateVmRequest,
    { name: "a", config: { expose: [{ port: 1, protocol: "icmp" }] } },
    'request body: field "config.expose.0.protocol" must be one of "tcp", "udp"',
  ],
];

for (const [what, schema, value, expected] of cases) {
  test(`${what} is refused in one sentence that names the field`, () => {
    assert.equal(sentence(schema, value), expected);
  });
}

test("a valid value is given back as it came", () => {
  const value = { name: "web-1", plugin: "hello", config: { env: { A: "1" } } };
  assert.equal(checkSchema(CreateVmRequest, value, "request body"), value);
});
