import type { HypervisorProcess } from "../runtime/runtime.ts";
import type { ObservedTap } from "./observed.ts";

/** One thing to do for a VM, as data. Every one of them can be repeated: doing it twice is doing it once. */
export type Step =
  | { readonly kind: "bring_bridge_up" }
  /** `bridge`: where it is not the managed one. */
  | { readonly kind: "create_tap"; readonly name: string; readonly uid: number; readonly bridge?: string | undefined }
  | { readonly kind: "repair_tap"; readonly tap: ObservedTap; readonly bridge?: string | undefined }
  | { readonly kind: "delete_tap"; readonly tap: ObservedTap }
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
  /** The generation ended by itself. */
  | { readonly kind: "record_end"; readonly generation: number }
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
}
