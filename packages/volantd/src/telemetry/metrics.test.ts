import assert from "node:assert/strict";
import test from "node:test";
import { Metrics, type MetricSources } from "./metrics.ts";

const nothing: MetricSources = {
  countVms: () => ({ byStatus: {} }),
  countAddresses: () => ({ held: 0, all: 253 }),
  droppedFrames: async () => new Map(),
  usage: async () => [],
};

/** The samples of a metric, as `labels value`. */
function samples(text: string, name: string): string[] {
  return text
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`))
    .map((line) => line.slice(name.length));
}

test("what there is, is counted anew for each answer; a VM that is gone is not told any more", async () => {
  let dropped = new Map([["web", 3]]);
  const metrics = new Metrics("1.2.3", {
    countVms: () => ({ byStatus: { running: 2, crashed: 1 } }),
    countAddresses: () => ({ held: 3, all: 253 }),
    droppedFrames: async () => dropped,
    usage: async () => [
      {
        id: 1,
        name: "web",
        pid: 7,
        cpu_ms: 1500,
        memory_bytes: 4096,
        cpu_cores: 1,
        memory_mb: 64,
        network: { rx_bytes: 10, tx_bytes: 20, rx_packets: 1, tx_packets: 2 },
      },
      { id: 2, name: "quiet", pid: 8, cpu_ms: 0, memory_bytes: 1, cpu_cores: 1, memory_mb: 64 },
    ],
  });
  // Two who ask at once get the same.
  await Promise.all([metrics.text(), metrics.text()]);
  const text = await metrics.text();
  assert.deepEqual(samples(text, "volant_vms"), [
    '{status="pending"} 0',
    '{status="starting"} 0',
    '{status="running"} 2',
    '{status="stopped"} 0',
    '{status="crashed"} 1',
  ]);
  assert.deepEqual(samples(text, "volant_addresses"), ['{state="held"} 3', '{state="free"} 250']);
  assert.deepEqual(samples(text, "volant_spoofed_frames_dropped"), ['{vm="web"} 3']);
  assert.deepEqual(samples(text, "volant_vm_cpu_seconds_total"), ['{vm="web"} 1.5', '{vm="quiet"} 0']);
  assert.deepEqual(samples(text, "volant_vm_memory_bytes"), ['{vm="web"} 4096', '{vm="quiet"} 1']);
  assert.deepEqual(samples(text, "volant_vm_network_bytes_total"), [
    '{vm="web",direction="rx"} 10',
    '{vm="web",direction="tx"} 20',
  ]);
  assert.deepEqual(samples(text, "volant_vm_network_packets_total").length, 2);
  assert.deepEqual(samples(text, "volant_info"), ['{version="1.2.3"} 1']);
  assert.match(text, /^process_resident_memory_bytes \d+$/m);
  assert.match(text, /^nodejs_eventloop_lag_p99_seconds /m);
  dropped = new Map();
  assert.deepEqual(samples(await metrics.text(), "volant_spoofed_frames_dropped"), []);
});

test("requests are counted by route and status, and never by the path that was asked for", async () => {
  const metrics = new Metrics("1", nothing);
  const common = { requestId: "r", method: "GET", startedMs: 0, endedMs: 20 };
  metrics.request({ ...common, route: "/api/v1/vms/:name", status: 404 });
  metrics.request({ ...common, route: "/api/v1/vms/:name", status: 404 });
  metrics.request({ ...common, route: undefined, status: 404 });
  const text = await metrics.text();
  assert.deepEqual(samples(text, "volant_http_requests_total"), [
    '{method="GET",route="/api/v1/vms/:name",status="404"} 2',
    '{method="GET",route="none",status="404"} 1',
  ]);
  assert.deepEqual(samples(text, "volant_http_request_seconds_sum"), [
    '{method="GET",route="/api/v1/vms/:name"} 0.04',
    '{method="GET",route="none"} 0.02',
  ]);
});

test("a start is told by its phases, and a step that fails is counted as one", async () => {
  const metrics = new Metrics("1", nothing);
  const step = (kind: "launch" | "attach_guest" | "record_running", startedMs: number, failure?: string): void =>
    metrics.step({ vmId: 1, kind, startedMs, endedMs: startedMs + 1000, failure });
  step("launch", 0, "no memory");
  step("launch", 5000);
  step("attach_guest", 7000);
  step("record_running", 9000);
  const text = await metrics.text();
  assert.deepEqual(samples(text, "volant_step_failures_total"), ['{step="launch"} 1']);
  assert.deepEqual(samples(text, "volant_vm_start_seconds_sum"), [
    '{phase="network"} 0',
    '{phase="launch"} 1',
    '{phase="boot"} 2',
    '{phase="workload"} 2',
    '{phase="all"} 5',
  ]);
});
