import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { checkSchema, Manifest, Network } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import { parseSubnet } from "./address.ts";
import { checkManifest } from "./manifest.ts";

const managed = { bridge: "vbr0", pool: { subnet: parseSubnet("192.168.127.0/24"), gateway: 0xc0a87f01 } };
/** It has every field that there is. */
const example = checkSchema(
  Manifest,
  JSON.parse(readFileSync(join(import.meta.dirname, "../../../contract/golden/manifest.json"), "utf8")),
  "the example",
);
const least: Manifest = {
  name: "hello",
  version: "1",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { base_url: "http://127.0.0.1:80", entrypoint: ["/bin/hello"] },
  initramfs: { url: "file:///x" },
};

function isNotSupported(changes: Partial<Manifest>): boolean {
  try {
    checkManifest({ ...least, ...changes }, managed);
    return false;
  } catch (error) {
    assert.ok(error instanceof VolantError && error.code === "not_supported", String(error));
    return true;
  }
}

/** Those of which the contract, and so docs/manifest.md, says that they are answered with 501. */
function saidToBeRefused(fields: object): string[] {
  return Object.entries(fields as Record<string, { readonly description?: string }>)
    .filter(([, { description }]) => /\b501\b/.test(description ?? ""))
    .map(([name]) => name);
}

test("the manifest's fields that are said to be answered with 501 are, and all others are taken", () => {
  const fields = Object.keys(Manifest.properties) as (keyof Manifest)[];
  const refused = fields.filter((field) => isNotSupported({ [field]: example[field] }));
  assert.deepEqual(refused, saidToBeRefused(Manifest.properties));
});

test("the network's fields that are said to be answered with 501 for some values are, and no others", () => {
  const others: Record<keyof Network, unknown> = {
    mode: " DHCP ",
    bridge: "br0",
    tap: "tap0",
    subnet: "192.168.127.0/24",
    gateway: "192.168.127.1",
    auto_assign: false,
  };
  const refused = Object.entries(others).filter(([field, value]) => isNotSupported({ network: { [field]: value } }));
  assert.deepEqual(
    refused.map(([field]) => field),
    saidToBeRefused(Network.properties),
  );
});
