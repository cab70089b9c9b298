/** What the planner compares: a VM as the store wants it, and what the host shows of it. Both are plain data. */
import type { HypervisorProcess } from "../runtime/runtime.ts";
import type { DhcpLease } from "../model/dhcp-lease.ts";
import type { Desired } from "../model/vm-state.ts";
import type { ObservedPolicy, VmPolicy } from "./policy.ts";

/** A VM's row, as far as it decides what should exist. */
export interface DesiredVm {
  readonly id: number;
  readonly name: string;
  readonly desired: Desired;
  /** Counts the starts asked for. */
  readonly generation: number;
  /** Last generation whose process was seen. */
  readonly startedGeneration: number;
  /** Last generation that was running: it had called home, and its workload was well. */
  readonly runningGeneration: number;
  /** Last generation that ended, or was stopped; it is not started again. */
  readonly endedGeneration: number;
  /** Absent where the mode needs none. */
  readonly tap: string | undefined;
  /** The bridge that the tap joins where the user named one; else it is the managed one. */
  readonly bridge?: string | undefined;
  readonly mac: string;
  /** The leased address; absent where the mode needs none. */
  readonly address: number | undefined;
  /** What its tap lets through; absent where it has none, or none that the host holds to anything. */
  readonly policy?: VmPolicy | undefined;
  /** The user that the hypervisor runs as, and that must own the tap. */
  readonly uid: number;
  /** Whether `running` waits for the guest to have an address by DHCP. */
  readonly needsLease: boolean;
  /** Whether `running` waits for a healthy answer. */
  readonly healthCheck: boolean;
  /** Once it has ended, it is to be started again: then, on the clock of `nowMs`; undefined when no time was written down yet. */
  readonly restart?: { readonly dueAtMs: number | undefined } | undefined;
  /** After so long a silence of its agent the guest counts as hung; absent where it is left alone. */
  readonly hangLimitMs?: number | undefined;
  /** How long its agent gets to end it; absent for the default. */
  readonly stopTimeoutMs?: number | undefined;
  /** It has failed before and has been well since then: when that is forgotten. */
  readonly steadyAtMs?: number | undefined;
}

/** A link that carries this VM's mark. */
export interface ObservedTap {
  /** Never reused by the kernel while it is up, other than a name. */
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  /** Whether it is a port of the VM's bridge. */
  readonly attached: boolean;
  /** A persistent tap with vnet_hdr. */
  readonly usable: boolean;
  /** Its guest's frames go through the guard before anything else sees them. */
  readonly guarded?: boolean;
  readonly owner: number | undefined;
}

export interface ObservedNeighbour {
  readonly address: number;
  readonly mac: string;
}

export type BridgeState = "up" | "down" | "missing" | "not_a_bridge";

/** What of the network concerns all VMs. Where Volant manages none (Noop), the planner plans none. */
export type ObservedNetwork =
  | {
      readonly managed: true;
      readonly bridge: BridgeState;
      readonly bridgeName: string;
      /** Not the bridge that `volar setup` made: taps join it, and nothing of its own is changed. */
      readonly foreign?: boolean;
      /** The host's address is on the bridge. A foreign bridge need not have one, and counts as having it. */
      readonly addressed: boolean;
      /** A LAN bridge that `volar setup` made is gone, or down, and can be put back. */
      readonly lanGone?: true;
      /** A further bridge of the managed one is down, or not joined to it. */
      readonly furtherBroken?: true;
      /** Something else that set-up recorded is missing: a rule of the firewall, forwarding, the bridge's MAC. */
      readonly setupDamaged?: true;
    }
  | { readonly managed: false };

/** The link to a guest's agent, and what came over it. */
export interface ObservedGuest {
  readonly generation: number;
  readonly attached: boolean;
  /** The configuration was accepted since the link was last attached. */
  readonly configured: boolean;
  readonly workload: "waiting_for_config" | "starting" | "running" | "exited" | "failed" | "stopping" | undefined;
  readonly health: "unknown" | "healthy" | "unhealthy" | undefined;
  /** In mode `dhcp`, once the guest has said how far it is. */
  readonly lease?: DhcpLease | undefined;
  /** What the agent says is wrong, in words. */
  readonly trouble: string | undefined;
  /** Since when it has not answered, on the clock of `nowMs`; of a guest that has never answered, undefined. */
  readonly silentSinceMs?: number | undefined;
  /** Its agent is there and can't serve this host: why not, in a sentence. */
  readonly refusal?: string | undefined;
  /** When its silence was last seen to be no fault of its own: this host can't connect to its link, or has paused it. */
  readonly excusedAtMs?: number | undefined;
  /** It is paused. */
  readonly isPaused?: boolean;
}

/** How far the stopping of a process has come. Times are milliseconds of the same clock as `nowMs`. */
export interface Shutdown {
  readonly pid: number;
  readonly startTicks: bigint;
  readonly askedAtMs?: number;
  /** The agent did not take the request. */
  readonly refused?: boolean;
  readonly buttonAtMs?: number;
}

export interface ObservedVm {
  readonly nowMs: number;
  readonly network: ObservedNetwork;
  readonly processes: readonly HypervisorProcess[];
  /** What serves the VM's vsock device, beside each hypervisor that has one. */
  readonly backends: readonly HypervisorProcess[];
  readonly taps: readonly ObservedTap[];
  /** The rules and its entry in them; absent where the host has none. */
  readonly policy?: ObservedPolicy | undefined;
  /** A link without this VM's mark has the name of its tap. */
  readonly foreignTap: boolean;
  /** The installation whose mark that link bears. */
  readonly tapHolder?: string | undefined;
  /** Permanent entries for this VM's MAC or its address on the bridge. */
  readonly neighbours: readonly ObservedNeighbour[];
  readonly folder: boolean;
  readonly guest: ObservedGuest | undefined;
  readonly shutdowns: readonly Shutdown[];
}
