import assert from "node:assert/strict";
import test from "node:test";
import { parseConfig } from "./config.ts";

test("every variable of the contract is read, and says what it says", () => {
  const config = parseConfig(
    {
      VOLANT_API_LISTEN: "0.0.0.0:8000",
      VOLANT_API_ADVERTISE: "volant.example:8000",
      VOLANT_API_KEY: "secret",
      VOLANT_API_ALLOW_CIDR: "10.0.0.0/8",
      VOLANT_CORS_ORIGINS: "https://console.example",
      VOLANT_BRIDGE: "vbr7",
      VOLANT_SUBNET: "10.9.0.0/24",
      VOLANT_HOST_IP: "10.9.0.254",
      VOLANT_RUNTIME_DIR: "/run/v",
      VOLANT_LOG_DIR: "/var/log/v",
      VOLANT_DB_PATH: "/srv/v.db",
      VOLANT_WORK_DIR: "/srv/v",
      VOLANT_KERNEL_BZIMAGE: "/boot/bz",
      VOLANT_KERNEL_VMLINUX: "/boot/vm",
      VOLANT_HYPERVISOR: "/opt/qemu",
      VOLANT_NETWORK: "noop",
      VOLANT_DNS: "192.0.2.53",
    },
    "/home/u",
  );
  assert.deepEqual([config.listenHost, config.listenPort, config.apiKey], ["0.0.0.0", 8000, "secret"]);
  assert.equal(config.advertise, "volant.example:8000");
  assert.deepEqual([config.allowCidrs, config.corsOrigins], [["10.0.0.0/8"], ["https://console.example"]]);
  assert.equal(config.managed.bridge, "vbr7");
  assert.deepEqual(config.managed.pool, { subnet: { network: 0x0a090000, prefixLength: 24 }, gateway: 0x0a0900fe });
  assert.deepEqual([config.runtimeDir, config.logDir, config.dbPath], ["/run/v", "/var/log/v", "/srv/v.db"]);
  assert.deepEqual([config.workDir, config.bzImagePath, config.vmlinuxPath], ["/srv/v", "/boot/bz", "/boot/vm"]);
  assert.deepEqual([config.hypervisor, config.network, config.nameservers], ["/opt/qemu", "noop", ["192.0.2.53"]]);
});
