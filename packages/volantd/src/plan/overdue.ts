/** A start that takes too long: said in words, so that nobody waits for what will not come. Nothing is ended by it. Pure. */
import type { DesiredVm, ObservedVm } from "./observed.ts";

/** Since when a VM's hypervisor has been up without the VM being `running`; undefined when it is not so. */
export interface Starting {
  readonly generation: number;
  readonly sinceMs: number;
}

/** @param before the answer to the last look */
export function startingSince(
  vm: DesiredVm | undefined,
  observed: ObservedVm,
  before: Starting | undefined,
): Starting | undefined {
  if (vm === undefined || vm.desired !== "running") return undefined;
  const { generation } = vm;
  if (vm.runningGeneration === generation || vm.endedGeneration === generation) return undefined;
  if (!observed.processes.some((process) => process.generation === generation)) return undefined;
  return before?.generation === generation ? before : { generation, sinceMs: observed.nowMs };
}

/** When a start counts as overdue; undefined when it does already, or nothing is starting. */
export function overdueAtMs(starting: Starting | undefined, limitMs: number, nowMs: number): number | undefined {
  if (starting === undefined) return undefined;
  const atMs = starting.sinceMs + limitMs;
  return atMs > nowMs ? atMs : undefined;
}

/** The limit, where the start has passed it. */
export function passedLimitMs(starting: Starting | undefined, limitMs: number, nowMs: number): number | undefined {
  return starting !== undefined && nowMs >= starting.sinceMs + limitMs ? limitMs : undefined;
}

/**
 * What a VM that has passed its limit is waiting for, as a sentence.
 *
 * @param waitsFor the word for it, such as `waiting_for_agent`
 */
export function overdueText(waitsFor: string, { network, guest }: ObservedVm, limitMs: number): string {
  const after = `after ${limitMs / 1000} s`;
  if (waitsFor === "waiting_for_agent") {
    return `the guest has not called home ${after}: its console may say why; still waiting`;
  }
  if (waitsFor === "waiting_for_lease") {
    const where = network.managed ? ` on bridge ${network.bridgeName}` : "";
    return `no lease ${after}${where}: ${guest?.lease?.reason ?? "no DHCP server has answered"}; still trying`;
  }
  return `not running ${after}: ${waitsFor}; still waiting`;
}
