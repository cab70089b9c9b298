import assert from "node:assert/strict";
import test from "node:test";
import { setupRequest } from "./flags.ts";

const SETTINGS = [
  ["bridge", "VOLANT_BRIDGE", "bridge", "vbr7"],
  ["subnet", "VOLANT_SUBNET", "subnet", "10.9.0.0/24"],
  ["hostIp", "VOLANT_HOST_IP", "hostIp", "10.9.0.1"],
  ["runtimeDir", "VOLANT_RUNTIME_DIR", "runtimeDir", "/run/v"],
  ["logDir", "VOLANT_LOG_DIR", "logDir", "/var/log/v"],
  ["workDir", "VOLANT_WORK_DIR", "workDir", "/srv/v"],
  ["bzimage", "VOLANT_KERNEL_BZIMAGE", "bzImage", "/boot/bz"],
  ["vmlinux", "VOLANT_KERNEL_VMLINUX", "vmlinux", "/boot/vm"],
  ["firewall", "VOLANT_FIREWALL", "firewall", "nftables"],
] as const;

test("every setting of set-up is taken from its flag, else from its variable", () => {
  for (const [flag, variable, field, value] of SETTINGS) {
    assert.equal(setupRequest({}, { [variable]: value })[field], value, variable);
    assert.equal(setupRequest({ [flag]: value }, { [variable]: "other" })[field], value, flag);
  }
});

test("the kernel's files follow the work folder, and the service file may be left out", () => {
  const request = setupRequest({ workDir: "/srv/v", serviceFile: "" }, {});
  assert.deepEqual(
    [request.bzImage, request.vmlinux, request.serviceFile],
    ["/srv/v/kernel/bzImage", "/srv/v/kernel/vmlinux", ""],
  );
  assert.equal(setupRequest({}, {}).serviceFile, "/etc/systemd/system/volantd.service");
  assert.equal(setupRequest({ serviceFile: "/x/v.service" }, {}).serviceFile, "/x/v.service");
});
