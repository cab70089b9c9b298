import type { Vm, VmStatus } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import { delay } from "./delay.ts";
import { streamItems } from "./events.ts";
import type { Transport } from "./transport.ts";

export interface WaitOptions {
  /** Status to wait for. Default: `running`. */
  readonly status?: VmStatus | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds after which waiting fails with `timeout`. Default: none. */
  readonly timeoutMs?: number | undefined;
  /** Called with the VM at the first look and whenever its status or reason changed. */
  readonly onChange?: ((vm: Vm) => void) | undefined;
}

/** A status that a VM does not leave by itself, unless it is to be started again. */
const FINAL: readonly VmStatus[] = ["stopped", "crashed"];

function phase(vm: Vm): string {
  return vm.reason === undefined ? vm.status : `${vm.status} (${vm.reason})`;
}

/** Why waiting on is pointless, or undefined. */
export function hopeless(vm: Vm, wanted: VmStatus): VolantError | undefined {
  if (vm.status === wanted || !FINAL.includes(vm.status) || vm.next_restart_at !== undefined) return undefined;
  // A crash is not what someone who waits for an orderly stop is after, and a stop is no crash.
  const why = vm.reason === undefined ? "" : `: ${vm.reason}`;
  return new VolantError("wrong_state", `VM "${vm.name}" is ${vm.status} and not ${wanted}${why}`, {
    hint: `its console and log may say more; volar vms start ${vm.name} starts it again`,
  });
}

/** How long a look may take for what a wait in vain ends with. */
const LAST_LOOK_MS = 2000;

/** A browser gives up what is under way when the host's network changes, which on a host of VMs it does with each of them. */
const LOOK_AGAIN_MS = 250;

/** The VM now, asked for once more where nothing answered. */
async function lookAt(transport: Transport, name: string, signal: AbortSignal | undefined): Promise<Vm> {
  const ask = async (): Promise<Vm> => (await transport.call("vms.get", { params: { name }, signal })).body;
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof VolantError) || error.code !== "not_ready") throw error;
    await delay(LOOK_AGAIN_MS, signal);
    return await ask();
  }
}

/** What a wait in vain tells: the VM as it was seen last, and where the time was too short for any look, as it is. */
async function lastPhase(transport: Transport, name: string, last: Vm | undefined): Promise<string> {
  if (last !== undefined) return phase(last);
  try {
    const { body } = await transport.call("vms.get", { params: { name }, signal: AbortSignal.timeout(LAST_LOOK_MS) });
    return phase(body);
  } catch {
    return "unknown";
  }
}

/**
 * Waits until a VM has a status: a first look once events flow, then a look after each event about it.
 *
 * @returns the VM as it is then
 * @throws VolantError `not_found` when it is not there (any more), `wrong_state` with the reason when it crashed or stopped instead, `timeout`
 */
export async function waitForVm(transport: Transport, name: string, options: WaitOptions = {}): Promise<Vm> {
  const { status = "running", timeoutMs, onChange } = options;
  const deadline = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs);
  const signals = [options.signal, deadline].filter((signal) => signal !== undefined);
  const signal = signals.length === 0 ? undefined : AbortSignal.any(signals);
  let last: Vm | undefined;
  async function look(): Promise<Vm | undefined> {
    const vm = await lookAt(transport, name, signal);
    if (last === undefined || phase(last) !== phase(vm)) onChange?.(vm);
    last = vm;
    if (vm.status === status) return vm;
    const error = hopeless(vm, status);
    if (error !== undefined) throw error;
    return undefined;
  }
  try {
    for await (const item of streamItems(transport, { signal })) {
      if (item.kind === "event" && (item.event.name !== name || item.event.type === "VM_LOG")) continue;
      const found = await look();
      if (found !== undefined) return found;
    }
  } catch (error) {
    if (deadline?.aborted !== true || options.signal?.aborted === true) throw error;
    const now = await lastPhase(transport, name, last);
    const seconds = Math.round((timeoutMs ?? 0) / 100) / 10;
    throw new VolantError("timeout", `VM "${name}" is not ${status} after ${seconds} s: it is ${now}`, {
      cause: error,
    });
  }
  throw new Error("the event stream ended, which it never does by itself");
}
