/** What monitoring reads of volantd, in Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats). Names say their units. */
import type { VmUsage } from "@volant/contract";
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { StepDone, RequestDone, Telemetry } from "./telemetry.ts";
import { StartClock } from "./start-clock.ts";

/** What is read anew for each answer. */
export interface MetricSources {
  /** VMs by status. */
  countVms(): { readonly byStatus: Readonly<Record<string, number>> };
  /** Held and all addresses of the managed network. */
  countAddresses(): { readonly held: number; readonly all: number };
  /** Frames that each VM was kept from sending, by its name; resolves once they are counted. */
  droppedFrames(): Promise<ReadonlyMap<string, number>>;
  /** Of all VMs that have a hypervisor. Asked several times for each answer. */
  usage(): Promise<readonly VmUsage[]>;
}

/** From a request's milliseconds to a slow guest's minute. */
const BUCKETS_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const STATUSES = ["pending", "starting", "running", "stopped", "crashed"];
const MS = 1000;

type SetValue = (labels: Readonly<Record<string, string>>, value: number) => void;
type Collect = (set: SetValue) => void | Promise<void>;

/** Reads a metric's values; what is gone is not told any more. Two answers at once must not count twice. */
async function anew(metric: { reset(): void }, collect: Collect, set: SetValue): Promise<void> {
  const found: Parameters<SetValue>[] = [];
  await collect((labels, value) => void found.push([labels, value]));
  metric.reset();
  for (const [labels, value] of found) set(labels, value);
}

export class Metrics implements Telemetry {
  readonly #registry = new Registry();
  readonly #starts = new StartClock();
  readonly #requests: Counter<"method" | "route" | "status">;
  readonly #requestSeconds: Histogram<"method" | "route">;
  readonly #stepSeconds: Histogram<"step">;
  readonly #stepFailures: Counter<"step">;
  readonly #startSeconds: Histogram<"phase">;

  constructor(version: string, sources: MetricSources) {
    const registers = [this.#registry];
    const buckets = BUCKETS_SECONDS;
    // Of this process: CPU, memory, descriptors, the loop's lag, garbage collection.
    collectDefaultMetrics({ register: this.#registry });
    new Gauge({ name: "volant_info", help: "volantd's version", labelNames: ["version"], registers }).set(
      { version },
      1,
    );
    this.#requests = new Counter({
      name: "volant_http_requests_total",
      help: "Answered requests",
      labelNames: ["method", "route", "status"],
      registers,
    });
    this.#requestSeconds = new Histogram({
      name: "volant_http_request_seconds",
      help: "From a request's headers to its answer's end; of streams, how long they lasted",
      labelNames: ["method", "route"],
      buckets,
      registers,
    });
    this.#stepSeconds = new Histogram({
      name: "volant_step_seconds",
      help: "What the steps of VMs' plans take, those that fail included",
      labelNames: ["step"],
      buckets,
      registers,
    });
    this.#stepFailures = new Counter({
      name: "volant_step_failures_total",
      help: "Steps that failed; each is tried again",
      labelNames: ["step"],
      registers,
    });
    this.#startSeconds = new Histogram({
      name: "volant_vm_start_seconds",
      help: "From a start's first step to a running VM: each phase, and all of them",
      labelNames: ["phase"],
      buckets,
      registers,
    });
    gauge("volant_vms", "VMs, by status", ["status"], (set) => {
      const { byStatus } = sources.countVms();
      for (const status of STATUSES) set({ status }, byStatus[status] ?? 0);
    });
    gauge("volant_addresses", "Addresses of the managed network", ["state"], (set) => {
      const { held, all } = sources.countAddresses();
      set({ state: "held" }, held);
      set({ state: "free" }, all - held);
    });
    gauge(
      "volant_spoofed_frames_dropped",
      "Frames with others' addresses that a VM was kept from sending since its start",
      ["vm"],
      async (set) => {
        for (const [vm, frames] of await sources.droppedFrames()) set({ vm }, frames);
      },
    );

    gauge("volant_vm_memory_bytes", "Memory of the host that a VM's hypervisor has in use", ["vm"], async (set) => {
      for (const { name, memory_bytes: bytes } of await sources.usage()) set({ vm: name }, bytes);
    });
    counter("volant_vm_cpu_seconds_total", "Processor time that a VM's hypervisor has used", ["vm"], async (set) => {
      for (const { name, cpu_ms: ms } of await sources.usage()) set({ vm: name }, ms / MS);
    });
    for (const unit of ["bytes", "packets"] as const) {
      const help = `What went over a VM's tap since it was made, as the guest sees it: ${unit}`;
      counter(`volant_vm_network_${unit}_total`, help, ["vm", "direction"], async (set) => {
        for (const { name, network } of await sources.usage()) {
          if (network === undefined) continue;
          for (const direction of ["rx", "tx"] as const) set({ vm: name, direction }, network[`${direction}_${unit}`]);
        }
      });
    }

    function gauge(name: string, help: string, labelNames: readonly string[], collect: Collect): void {
      const made: Gauge = new Gauge({
        name,
        help,
        labelNames: [...labelNames],
        registers,
        collect: () => anew(made, collect, (labels, value) => made.set(labels, value)),
      });
    }

    function counter(name: string, help: string, labelNames: readonly string[], collect: Collect): void {
      const made: Counter = new Counter({
        name,
        help,
        labelNames: [...labelNames],
        registers,
        collect: () => anew(made, collect, (labels, value) => made.inc(labels, value)),
      });
    }
  }

  /** Media type of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** @throws what a source throws */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  request({ method, route = "none", status, startedMs, endedMs }: RequestDone): void {
    this.#requests.inc({ method, route, status: String(status) });
    this.#requestSeconds.observe({ method, route }, (endedMs - startedMs) / MS);
  }

  step(done: StepDone): void {
    const { kind, startedMs, endedMs, failure } = done;
    this.#stepSeconds.observe({ step: kind }, (endedMs - startedMs) / MS);
    if (failure !== undefined) this.#stepFailures.inc({ step: kind });
    const start = this.#starts.see(done);
    if (start === undefined) return;
    const { phases } = start;
    for (const part of phases) this.#startSeconds.observe({ phase: part.phase }, (part.endedMs - part.startedMs) / MS);
    this.#startSeconds.observe({ phase: "all" }, (start.endedMs - start.startedMs) / MS);
  }
}
