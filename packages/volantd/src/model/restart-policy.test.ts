import assert from "node:assert/strict";
import test from "node:test";
import type { Manifest, RestartPolicy, VmConfig } from "@volant/contract";
import { restartPolicy } from "./restart-policy.ts";
import { needsStart } from "./vm-config.ts";
import { resolveVm, type VmSpec } from "./vm-spec.ts";

const managed = { bridge: "vbr0", pool: { subnet: { network: 0x0a000000, prefixLength: 24 }, gateway: 0x0a000001 } };

function spec(restart: RestartPolicy | undefined, config: VmConfig = {}): VmSpec {
  const manifest: Manifest = {
    name: "hello",
    version: "1",
    resources: { cpu_cores: 1, memory_mb: 128 },
    workload: { entrypoint: ["/bin/hello"] },
    initramfs: { url: "file:///hello" },
    ...(restart === undefined ? {} : { restart }),
  };
  return resolveVm({ name: "web", config }, manifest, managed);
}

test("a VM's own word wins over its manifest's, and without one it is not started again", () => {
  assert.equal(restartPolicy({ spec: spec(undefined) }), "no");
  assert.equal(restartPolicy({ spec: spec("always") }), "always");
  assert.equal(restartPolicy({ spec: spec("always", { restart: "no" }) }), "no");
  assert.equal(restartPolicy({ spec: spec(undefined, { restart: "on-failure" }) }), "on-failure");
});

test("the policy as last written is in force, whatever else waits for the next start; it waits for none itself", () => {
  const next = spec(undefined, { restart: "always", resources: { memory_mb: 256 } });
  assert.equal(restartPolicy({ spec: spec(undefined), next }), "always");
  assert.equal(needsStart(spec(undefined), spec(undefined, { restart: "always" }), undefined), false);
});
