import type { HypervisorProcess } from "../runtime/runtime.ts";
import type { ObservedTap } from "./observed.ts";
import type { VmPolicy } from "./policy.ts";

/** One thing to do for a VM, as data. Every one of them can be repeated: doing it twice is doing it once. */
export type Step =
  | { readonly kind: "bring_bridge_up" }
  /** What the VM's tap lets through, before there is a tap. */
  | { readonly kind: "put_policy"; readonly policy: VmPolicy }
  /** `bridge`: where it is not the managed one. `guarded`: its guest's frames go through the guard. */
  | {
      readonly kind: "create_tap";
      readonly name: string;
      readonly uid: number;
      readonly bridge?: string | undefined;
      readonly guarded?: true;
    }
  | {
      readonly kind: "repair_tap";
      readonly tap: ObservedTap;
      readonly bridge?: string | undefined;
      readonly guarded?: true;
    }
  | { readonly kind: "delete_tap"; readonly tap: ObservedTap }
  /** Once the tap is gone; one that were still there would pass nothing. */
  | { readonly kind: "remove_policy" }
  | { readonly kind: "set_neighbour"; readonly address: number; readonly mac: string }
  | { readonly kind: "delete_neighbour"; readonly address: number }
  | { readonly kind: "launch"; readonly generation: number }
  /** The generation's process was seen: from now on its absence is an end, and not a start that is still to come. */
  | { readonly kind: "record_started"; readonly generation: number }
  | { readonly kind: "attach_guest"; readonly generation: number }
  | { readonly kind: "configure_guest"; readonly generation: number }
  | { readonly kind: "detach_guest" }
  | { readonly kind: "record_running"; readonly generation: number }
  | { readonly kind: "ask_shutdown"; readonly process: HypervisorProcess; readonly graceMs: number }
  | { readonly kind: "press_power_button"; readonly process: HypervisorProcess }
  | { readonly kind: "kill"; readonly process: HypervisorProcess }
  /** Its hypervisor is gone, or was never there: it serves nobody. */
  | { readonly kind: "end_backend"; readonly process: HypervisorProcess }
  /** The generation ended by itself. */
  | { readonly kind: "record_end"; readonly generation: number }
  /** Its agent has been silent for too long: that is its end, though its process is still there. */
  | { readonly kind: "record_hang"; readonly generation: number; readonly silentMs: number }
  /** Writes down when the VM, which has ended, is started again. */
  | { readonly kind: "schedule_restart"; readonly generation: number }
  /** Starts the VM again: another generation. */
  | { readonly kind: "restart"; readonly generation: number }
  /** It has been well for long enough that earlier failures say nothing about it. */
  | { readonly kind: "forget_failures"; readonly generation: number }
  /** The generation was stopped because the user wanted it. */
  | { readonly kind: "record_stopped"; readonly generation: number }
  | { readonly kind: "remove_folder" }
  /** Gives name, MAC, context id, tap name and lease back, in one transaction. */
  | { readonly kind: "delete_row" };

export type StepKind = Step["kind"];
export type StepOf<Kind extends StepKind> = Extract<Step, { readonly kind: Kind }>;

export interface Plan {
  /** In order; the next one is not begun when one fails. */
  readonly steps: readonly Step[];
  /** Why nothing more can be done now, though not all is as it should be. */
  readonly blocked?: string;
  /** When to look again even if nothing happens, on the clock of `nowMs`. */
  readonly wakeAtMs?: number;
  /** The same, though nothing is under way. */
  readonly lookAtMs?: number;
}
