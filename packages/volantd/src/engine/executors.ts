/** How each step is carried out: one executor for every kind, which the type demands. */
import { VolantError } from "@volant/contract";
import { formatAddress, formatSubnet, isLeasable, type AddressPool } from "../model/address.ts";
import { guestCmdline } from "../model/cmdline.ts";
import { guestSettings } from "../model/guest-config.ts";
import { hostnameOf } from "../model/hostname.ts";
import { checkMemory } from "../model/memory.ts";
import { HUNG, LAUNCH_FAILED, restartPolicy, wantsRestart } from "../model/restart-policy.ts";
import type { GuestLogEntry } from "../guest/log-entry.ts";
import type { ImageStore } from "../image/image.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import type { Shutdown } from "../plan/observed.ts";
import { restartDelayMs, RESTART_TIMES, type RestartTimes } from "../plan/restart.ts";
import type { Step, StepKind, StepOf } from "../plan/step.ts";
import type { HypervisorProcess, LaunchSpec, Runtime } from "../runtime/runtime.ts";
import type { EndRecord, Store, VmRecord } from "../store/store.ts";
import type { EngineLog } from "./engine.ts";
import type { EventHub } from "./event-hub.ts";
import { GuestSession, type GuestPort, type GuestPortOptions } from "./guest-session.ts";
import type { Lane } from "./lane.ts";
import { vmEvent } from "./vm-view.ts";
import { logText, type WorkloadLogs } from "./workload-logs.ts";

export interface ExecutorDeps {
  readonly store: Store;
  readonly runtime: Runtime;
  readonly network: NetworkManager;
  readonly images: ImageStore;
  readonly events: EventHub;
  readonly logs: WorkloadLogs;
  readonly log: EngineLog;
  readonly pool: AddressPool;
  readonly openGuest: (options: GuestPortOptions) => GuestPort;
  readonly nameservers: () => Promise<readonly string[]>;
  readonly now: () => Date;
  readonly monotonicMs: () => number;
  /** How soon VMs are started again. Default: {@link RESTART_TIMES}. */
  readonly restartTimes?: RestartTimes | undefined;
}

export interface StepContext {
  readonly deps: ExecutorDeps;
  readonly lane: Lane;
  /** Absent for an orphan: only steps of a teardown are planned then. */
  readonly vm: VmRecord | undefined;
  readonly signal: AbortSignal;
  readonly wake: () => void;
}

/** `replan`: what the rest of the plan relies on is not so. */
export type Outcome = void | "replan";

type Executors = { readonly [Kind in StepKind]: (context: StepContext, step: StepOf<Kind>) => Promise<Outcome> };

/** The agent begins a shutdown at once or not at all. */
const AGENT_ANSWER_MS = 2000;
/** Of the time that a guest gets to shut down, what is left for the guest itself once its workload has had its share. */
const POWER_OFF_MS = 2000;

function required(vm: VmRecord | undefined): VmRecord {
  if (vm === undefined) throw new Error("a step that needs a row was planned without one");
  return vm;
}

function noteShutdown(lane: Lane, process: HypervisorProcess, changes: Partial<Shutdown>): void {
  const { pid, startTicks } = process;
  const same = (other: Shutdown) => other.pid === pid && other.startTicks === startTicks;
  const known = lane.shutdowns.find(same) ?? { pid, startTicks };
  lane.shutdowns = [...lane.shutdowns.filter((other) => !same(other)), { ...known, ...changes }];
}

/** When a restart that is decided on now is due, in milliseconds since the epoch. */
function restartAtMs({ failures }: VmRecord, { now, restartTimes = RESTART_TIMES }: ExecutorDeps): number {
  return now().getTime() + restartDelayMs(failures, restartTimes);
}

/** Writes down how a generation ended, and in the same write when the VM is started again, so that nobody sees the one without the other. */
function recordEnd(deps: ExecutorDeps, vmId: number, generation: number, end: Omit<EndRecord, "restartAtMs">): void {
  const record = deps.store.getVm(vmId);
  if (record === undefined) return;
  const isFollowed = wantsRestart(restartPolicy(record), { status: end.status, cause: end.cause });
  deps.store.recordEnd(vmId, generation, { ...end, restartAtMs: isFollowed ? restartAtMs(record, deps) : undefined });
}

async function launchSpec(vm: VmRecord, { images, pool }: ExecutorDeps): Promise<LaunchSpec> {
  const { spec } = vm;
  if (vm.address !== undefined && !isLeasable(pool, vm.address)) {
    const [address, subnet] = [formatAddress(vm.address), formatSubnet(pool.subnet)];
    throw new VolantError(
      "wrong_state",
      `its address ${address} is none of the subnet ${subnet}: volar vms restart ${spec.name}`,
    );
  }
  const { checksum } = spec.initramfs;
  if (checksum === undefined) throw new Error(`VM ${vm.id} was stored without the checksum of its initramfs`);
  const image = await images.bootImage(checksum);
  checkMemory(spec.memoryMib, image.unpackedBytes);
  return {
    vmId: vm.id,
    generation: vm.generation,
    name: spec.name,
    cpuCores: spec.cpuCores,
    memoryMib: spec.memoryMib,
    kernel: await images.kernel(),
    initrdPath: image.initrdPath,
    cmdline: guestCmdline({
      hostname: hostnameOf(spec.name),
      address: vm.address === undefined ? undefined : { guest: vm.address, pool },
      runtime: spec.runtime,
      plugin: spec.plugin,
      apiHost: spec.apiHost,
      apiPort: spec.apiPort,
      extra: spec.kernelCmdline,
    }),
    ...(vm.tap === undefined ? {} : { network: { tap: vm.tap, mac: vm.mac } }),
    vsockCid: vm.cid,
  };
}

/** Keeps and tells what a VM's workload prints. A function of its own, so that it holds on to nothing else of the VM for as long as that runs. */
function logKeeper({ logs, events }: ExecutorDeps, name: string): (entry: GuestLogEntry) => void {
  return (entry) => {
    logs.append(name, entry);
    if (entry.kind !== "line") return;
    const { stream, line, timestamp } = entry;
    events.publish({ type: "VM_LOG", name, timestamp, stream, line });
  };
}

const executors: Executors = {
  bring_bridge_up: ({ deps }) => deps.network.bringBridgeUp(),
  put_policy: ({ deps }, { policy }) => deps.network.putPolicy(policy),
  create_tap: ({ deps, lane }, { name, uid, bridge, guarded }) =>
    deps.network.createTap({ vmId: lane.vmId, name, uid, bridge, guarded }),
  repair_tap: ({ deps }, { tap, bridge, guarded }) => deps.network.repairTap(tap, bridge, guarded),
  delete_tap: ({ deps }, { tap }) => deps.network.deleteTap(tap),
  remove_policy: ({ deps, lane }) => deps.network.removePolicy(lane.vmId),
  set_neighbour: ({ deps }, { address, mac }) => deps.network.setNeighbour({ address, mac }),
  delete_neighbour: ({ deps }, { address }) => deps.network.deleteNeighbour(address),

  async launch({ deps, vm, signal }) {
    const record = required(vm);
    const spec = await launchSpec(record, deps);
    try {
      await deps.runtime.launch(spec, signal);
      return undefined;
    } catch (error) {
      signal.throwIfAborted();
      // What the host has no room for now it may have later: the step is tried again.
      if (!(error instanceof VolantError) || error.code === "exhausted") throw error;
      // The hypervisor was tried and said no. Trying again would hide that, and a user who waits would wait for ever.
      recordEnd(deps, record.id, record.generation, { status: "crashed", reason: error.message, cause: LAUNCH_FAILED });
      return "replan";
    }
  },

  async record_started({ deps, lane }, { generation }) {
    deps.store.recordStarted(lane.vmId, generation);
  },

  async attach_guest({ deps, lane, vm, wake }, { generation }) {
    const record = required(vm);
    const { spec, mac, address } = record;
    const identity = {
      vmId: lane.vmId,
      name: spec.name,
      hostname: hostnameOf(spec.name),
      mac,
      address: address === undefined ? undefined : formatAddress(address),
    };
    // A guest that an earlier volantd followed has told part of its log already.
    const lastLine = record.startedGeneration === generation ? await deps.logs.lastLine(spec.name) : undefined;
    // Another run of the guest: how its data goes is told anew.
    lane.toldTransport = undefined;
    lane.session = new GuestSession({
      port: deps.openGuest({ vmId: lane.vmId, generation, identity }),
      generation,
      onChange: wake,
      monotonicMs: deps.monotonicMs,
      isKnown: record.runningGeneration === generation,
      isLastSeen: lastLine === undefined ? undefined : (entry) => logText(entry) === lastLine,
      onLog: logKeeper(deps, spec.name),
    });
  },

  async configure_guest({ deps, lane, vm }, { generation }) {
    const { spec, mac, address } = required(vm);
    // Where a DHCP server speaks for the network, the host's own name servers may be out of the guest's reach.
    const offered = spec.mode === "dhcp" ? [] : await deps.nameservers();
    const nameservers = spec.config.nameservers ?? offered;
    const { pool } = deps;
    await lane.session?.configure(
      guestSettings({ spec, vmId: lane.vmId, generation, mac, address, pool, nameservers }),
    );
  },

  async detach_guest({ lane }) {
    const { session } = lane;
    lane.session = undefined;
    await session?.close();
  },

  async record_running({ deps, lane }, { generation }) {
    deps.store.recordRunning(lane.vmId, generation);
  },

  async ask_shutdown({ deps, lane }, { process, graceMs }) {
    noteShutdown(lane, process, { askedAtMs: deps.monotonicMs() });
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error("the agent does not answer")), AGENT_ANSWER_MS);
    try {
      const asked = lane.session?.shutdown(Math.max(1000, graceMs - POWER_OFF_MS));
      await Promise.race([asked, late.promise]);
      return undefined;
    } catch (error) {
      deps.log.warn({ vm: lane.vmId, error }, "the agent did not take the request to shut down");
      noteShutdown(lane, process, { refused: true });
      return "replan";
    } finally {
      clearTimeout(timer);
    }
  },

  async press_power_button({ deps, lane }, { process }) {
    noteShutdown(lane, process, { buttonAtMs: deps.monotonicMs() });
    try {
      await deps.runtime.pressPowerButton(process);
    } catch (error) {
      // The deadline that follows is for a guest that does not listen; it is as good for a hypervisor that does not.
      deps.log.warn({ vm: lane.vmId, error }, "the power button can't be pressed");
    }
  },

  kill: ({ deps }, { process }) => deps.runtime.kill(process),
  end_backend: ({ deps }, { process }) => deps.runtime.endBackend(process),

  async record_end({ deps, lane }, { generation }) {
    const { cause, message, consoleTail } = await deps.runtime.exitReport(lane.vmId, generation);
    const status = cause === "guest-shutdown" ? "stopped" : "crashed";
    lane.lastWords = consoleTail;
    recordEnd(deps, lane.vmId, generation, { status, reason: message, cause });
  },

  async record_hang({ deps, lane }, { generation, silentMs }) {
    lane.lastWords = (await deps.runtime.exitReport(lane.vmId, generation)).consoleTail;
    const reason = `the guest's agent has not answered for ${Math.round(silentMs / 1000)} s`;
    recordEnd(deps, lane.vmId, generation, { status: "crashed", reason, cause: HUNG });
  },

  async schedule_restart({ deps, lane, vm }, { generation }) {
    deps.store.scheduleRestart(lane.vmId, generation, restartAtMs(required(vm), deps));
  },

  async restart({ deps, lane, vm }, { generation }) {
    const { spec, endedReason = "it ended" } = required(vm);
    const tapNames = deps.network.tapNames(spec.name);
    deps.store.together(() => {
      const record = deps.store.restartVm(lane.vmId, generation, { pool: deps.pool, tapNames });
      // A user has said something else since the look.
      if (record === undefined) return;
      const message = `started again (${record.restarts}): ${endedReason}`;
      deps.events.publish(vmEvent("VM_UPDATED", record, { now: deps.now(), message }));
    });
    lane.lastWords = [];
  },

  async forget_failures({ deps, lane }, { generation }) {
    deps.store.forgetFailures(lane.vmId, generation);
  },

  async record_stopped({ deps, lane }, { generation }) {
    deps.store.recordEnd(lane.vmId, generation, { status: "stopped", reason: undefined });
  },

  remove_folder: ({ deps, lane }) => deps.runtime.removeFolder(lane.vmId),

  async delete_row({ deps, lane, vm }) {
    const record = required(vm);
    // Where somebody removed the folder, nobody has removed its console's archives, which are elsewhere.
    await deps.runtime.removeFolder(lane.vmId);
    await deps.logs.remove(record.spec.name);
    await deps.store.shared(() => {
      deps.store.deleteVm(lane.vmId);
      deps.events.publish(vmEvent("VM_DELETED", record, { now: deps.now() }));
    });
  },
};

/** Whether a step does nothing but write down what was seen. */
function isRecord({ kind }: Step): boolean {
  return kind.startsWith("record_");
}

/** Carries one step out. What acts on the host does so only once a power failure can't take back what it was planned from. */
export async function execute(context: StepContext, step: Step): Promise<Outcome> {
  if (!isRecord(step)) await context.deps.store.settled(context.lane.vmId);
  const executor = executors[step.kind] as (context: StepContext, step: Step) => Promise<Outcome>;
  return await executor(context, step);
}
