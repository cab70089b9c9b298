import assert from "node:assert/strict";
import test from "node:test";
import { createRequest } from "./create-request.ts";

test("every flag of create becomes the field that it is for", () => {
  const flags = {
    plugin: "hello",
    runtime: "other",
    cpu: 2,
    memory: 512,
    kernelCmdline: "quiet",
    kernel: "/vmlinuz",
    initramfs: "/x.cpio",
    initramfsChecksum: "sha256:0",
    apiHost: "192.168.127.1",
    apiPort: "7777",
    device: ["0000:01:00.0"],
    deviceAllowlist: ["10de:*"],
    network: "vsock",
    publish: [{ port: 80 }],
    ip: "192.168.127.9",
    mac: "02:00:00:00:00:01",
    allowSpoofing: true,
    restart: "always",
    env: { A: "1" },
    nameserver: ["192.0.2.53"],
  } as const;
  assert.deepEqual(createRequest("web", flags), {
    name: "web",
    plugin: "hello",
    runtime: "other",
    cpu_cores: 2,
    memory_mb: 512,
    kernel_cmdline: "quiet",
    api_host: "192.168.127.1",
    api_port: "7777",
    config: {
      kernel_override: "/vmlinuz",
      initramfs: { url: "/x.cpio", checksum: "sha256:0" },
      devices: { pci_passthrough: ["0000:01:00.0"], allowlist: ["10de:*"] },
      network: { mode: "vsock" },
      expose: [{ port: 80 }],
      ip_address: "192.168.127.9",
      mac_address: "02:00:00:00:00:01",
      policy: { anti_spoof: false },
      restart: "always",
      env: { A: "1" },
      nameservers: ["192.0.2.53"],
    },
  });
});
