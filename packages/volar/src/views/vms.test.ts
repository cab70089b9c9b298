import assert from "node:assert/strict";
import test from "node:test";
import type { Vm } from "@volant/contract";
import { phaseText, vmFields } from "./vms.ts";

const NOW_MS = Date.UTC(2026, 0, 1);
const at = (ms: number) => new Date(NOW_MS + ms).toISOString();

test("a VM's state has its reason, and when it is started again, in whole seconds and never in the past", () => {
  assert.equal(phaseText({ status: "running" }, NOW_MS), "running");
  const crashed = { status: "crashed", reason: "it broke" } as const;
  assert.equal(phaseText(crashed, NOW_MS), "crashed (it broke)");
  assert.equal(phaseText({ ...crashed, next_restart_at: at(3001) }, NOW_MS), "crashed (it broke; restarts in 4 s)");
  assert.equal(phaseText({ status: "stopped", next_restart_at: at(-9000) }, NOW_MS), "stopped (restarts in 0 s)");
});

test("its fields show the policy and how often it was made use of, and an agent that does not answer", () => {
  const vm: Vm = {
    id: 1,
    name: "web",
    status: "running",
    runtime: "hello",
    ip_address: "",
    mac_address: "02:00:00:00:00:01",
    cpu_cores: 1,
    memory_mb: 128,
    kernel_cmdline: "",
    serial_socket: "",
    created_at: at(0),
    updated_at: at(0),
    vsock_cid: 3,
    plugin: "hello",
    network: { mode: "vsock", addresses: [] },
    restart: "always",
    restarts: 2,
    agent: { attached: true, responding: false, version: "0.1.0" },
  };
  assert.match(vmFields(vm), /^restart: +always \(2 so far\)$/m);
  assert.match(vmFields(vm), /^agent: +attached 0\.1\.0 \(not responding\)$/m);
  assert.match(vmFields({ ...vm, restarts: 0 }), /^restart: +always$/m);
});
