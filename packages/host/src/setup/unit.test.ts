import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { setupRequest } from "../testing/setup-request.ts";
import { checkSettings } from "./settings.ts";
import { serviceUnit } from "./unit.ts";

test("the unit carries every setting, restores the network first, and never stops a VM with the daemon", () => {
  const unit = serviceUnit(checkSettings(setupRequest()));
  for (const line of [
    'Environment="VOLANT_BRIDGE=vbr0"',
    'Environment="VOLANT_SUBNET=192.168.127.0/24"',
    'Environment="VOLANT_HOST_IP=192.168.127.1"',
    'Environment="VOLANT_RUNTIME_DIR=/root/.volant/run"',
    'Environment="VOLANT_LOG_DIR=/root/.volant/logs"',
    'Environment="VOLANT_WORK_DIR=/var/lib/volant"',
    'Environment="VOLANT_KERNEL_BZIMAGE=/var/lib/volant/kernel/bzImage"',
    'Environment="VOLANT_KERNEL_VMLINUX=/var/lib/volant/kernel/vmlinux"',
    'Environment="VOLANT_FIREWALL=iptables"',
    'ExecStartPre=-"/opt/volant/bin/volar" setup --service-file ""',
    'ExecStart="/opt/volant/bin/volantd"',
    "KillMode=process",
    "Delegate=yes",
    "OOMPolicy=continue",
  ]) {
    assert.ok(unit.split("\n").includes(line), line);
  }
});

/** systemd-analyze ends with 0 on values that it does not know: only silence is approval. */
function verify(folder: string, content: string): string {
  const path = join(folder, "volantd.service");
  writeFileSync(path, content);
  const { stdout, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", path], { encoding: "utf8" });
  return (stdout + stderr)
    .split("\n")
    .filter((line) => line.includes("volantd.service"))
    .join("\n");
}

test("systemd-analyze accepts the unit, also with paths that hold spaces, quotes, backslashes, percent and dollar signs", () => {
  const folder = mkdtempSync(join(tmpdir(), "volant-unit-"));
  try {
    const odd = join(folder, `a b"c\\d%e$f'g`);
    execFileSync("mkdir", [odd]);
    // Programs may not have quotes and backslashes in their names.
    const programs = join(folder, "a b%e$f");
    execFileSync("mkdir", [programs]);
    const volantdProgram = join(programs, "volantd");
    const volarProgram = join(programs, "volar");
    for (const program of [volantdProgram, volarProgram]) {
      writeFileSync(program, "#!/bin/sh\n");
      chmodSync(program, 0o755);
    }
    const settings = checkSettings(setupRequest({ volantdProgram, volarProgram, runtimeDir: odd, logDir: odd }));
    assert.equal(verify(folder, serviceUnit(settings)), "");
    assert.match(verify(folder, serviceUnit(settings).replace("KillMode=process", "KillMode=nonsense")), /nonsense/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
