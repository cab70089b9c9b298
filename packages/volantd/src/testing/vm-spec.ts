/** A VM as the store is given it, for tests of what the store does with it. */
import type { Manifest } from "@volant/contract";
import type { VmSpec } from "../model/vm-spec.ts";

export const manifest: Manifest = {
  name: "hello",
  version: "1",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { entrypoint: ["/bin/hello"] },
  initramfs: { url: "file:///hello", checksum: `sha256:${"a".repeat(64)}` },
};

/** @param changes what differs from a bridged VM with the smallest resources */
export function vmSpec(name: string, changes: Partial<VmSpec> = {}): VmSpec {
  return {
    name,
    plugin: "hello",
    runtime: "hello",
    cpuCores: 1,
    memoryMib: 128,
    kernelCmdline: "",
    apiHost: "",
    apiPort: "",
    manifest,
    config: {},
    mode: "bridged",
    tap: undefined,
    initramfs: { url: "file:///hello" },
    ...changes,
  };
}
