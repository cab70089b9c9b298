/** How each step is carried out: one executor for every kind, which the type demands. */
import { VolantError } from "@volant/contract";
import type { AddressPool } from "../model/address.ts";
import { formatAddress } from "../model/address.ts";
import { guestCmdline } from "../model/cmdline.ts";
import { guestSettings } from "../model/guest-config.ts";
import { hostnameOf } from "../model/hostname.ts";
import { checkMemory } from "../model/memory.ts";
import type { ImageStore } from "../image/image.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import type { Shutdown } from "../plan/observed.ts";
import type { Step, StepKind, StepOf } from "../plan/step.ts";
import type { HypervisorProcess, LaunchSpec, Runtime } from "../runtime/runtime.ts";
import type { Store, VmRecord } from "../store/store.ts";
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
type Outcome = void | "replan";

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

async function launchSpec(vm: VmRecord, { images, pool }: ExecutorDeps): Promise<LaunchSpec> {
  const { spec } = vm;
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

const executors: Executors = {
  bring_bridge_up: ({ deps }) => deps.network.bringBridgeUp(),
  create_tap: ({ deps, lane }, { name, uid, bridge }) => deps.network.createTap({ vmId: lane.vmId, name, uid, bridge }),
  repair_tap: ({ deps }, { tap, bridge }) => deps.network.repairTap(tap, bridge),
  delete_tap: ({ deps }, { tap }) => deps.network.deleteTap(tap),
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
      if (!(error instanceof VolantError)) throw error;
      // The hypervisor was tried and said no. Trying again would hide that, and a user who waits would wait for ever.
      deps.store.recordEnd(record.id, record.generation, { status: "crashed", reason: error.message });
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
    lane.session = new GuestSession({
      port: deps.openGuest({ vmId: lane.vmId, generation, identity }),
      generation,
      onChange: wake,
      isLastSeen: lastLine === undefined ? undefined : (entry) => logText(entry) === lastLine,
      onLog: (entry) => {
        deps.logs.append(spec.name, entry);
        if (entry.kind !== "line") return;
        const { stream, line, timestamp } = entry;
        deps.events.publish({ type: "VM_LOG", name: spec.name, timestamp, stream, line });
      },
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

  async record_end({ deps, lane }, { generation }) {
    const { cause, message, consoleTail } = await deps.runtime.exitReport(lane.vmId, generation);
    const status = cause === "guest-shutdown" ? "stopped" : "crashed";
    lane.lastWords = consoleTail;
    deps.store.recordEnd(lane.vmId, generation, { status, reason: message });
  },

  async record_stopped({ deps, lane }, { generation }) {
    deps.store.recordEnd(lane.vmId, generation, { status: "stopped", reason: undefined });
  },

  remove_folder: ({ deps, lane }) => deps.runtime.removeFolder(lane.vmId),

  async delete_row({ deps, lane, vm }) {
    const record = required(vm);
    await deps.logs.remove(record.spec.name);
    deps.store.deleteVm(lane.vmId);
    deps.events.publish(vmEvent("VM_DELETED", record, { now: deps.now() }));
  },
};

/** Carries one step out. */
export async function execute(context: StepContext, step: Step): Promise<Outcome> {
  const executor = executors[step.kind] as (context: StepContext, step: Step) => Promise<Outcome>;
  return await executor(context, step);
}
