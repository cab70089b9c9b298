/**
 * What a user may know of a VM from the answers that he got, and what he may expect of the next. Pure: this is the model that volantd is held against.
 *
 * A VM of one client's own is known exactly, but for what faults do to it: from the moment at which its hypervisor may be killed, or its guest panic, until
 * it is started anew, it may have ended, and more than one answer is right.
 */
import type { Vm } from "@volant/contract";

export type Mode = "bridged" | "vsock" | "dhcp";
export type Restart = "no" | "on-failure" | "always";

/** What the stand-in's guest is told to do wrong (test/stand-in/README.md). */
export type Misdeed = "" | "standin.panic_after_ms=500" | "standin.poweroff_after_ms=500" | "standin.hang_after_ms=500";

/** What a user wants of a new VM. */
export interface Wish {
  readonly mode: Mode;
  readonly restart: Restart;
  /** Ports of its guest that are published. */
  readonly ports: readonly Port[];
  /** One address for life. */
  readonly address?: string | undefined;
  readonly misdeed: Misdeed;
}

/** `any`: volantd chooses the host's port. */
export interface Port {
  readonly guest: number;
  readonly host: number | "any";
}

export interface KnownVm {
  readonly id: number;
  desired: "running" | "stopped";
  version: number;
  /** What may be in force: as of the last start, and of those that its policy may have made since. */
  modes: readonly Mode[];
  /** From the next start on. */
  nextMode: Mode;
  restart: Restart;
  ports: readonly Port[];
  readonly address: string | undefined;
  readonly misdeed: Misdeed;
  /** Something was done to it since it was last started that may have ended it. */
  hurt: boolean;
  /** Its sockets were taken away: volantd can't reach the guest of this run any more, if it does not already. */
  wiped: boolean;
}

/** What one client knows: a VM, or that there is none of that name. */
export type Knowledge = KnownVm | undefined;

export function newlyKnown(wish: Wish, id: number): KnownVm {
  const { mode, restart, ports, address, misdeed } = wish;
  return {
    id,
    desired: "running",
    version: 1,
    modes: [mode],
    nextMode: mode,
    restart,
    ports,
    address,
    misdeed,
    hurt: false,
    wiped: false,
  };
}

/** Whether the run that was last asked for may have ended by itself. */
export function mayHaveEnded({ hurt, wiped, misdeed, restart }: KnownVm): boolean {
  const isGivenUp = misdeed.startsWith("standin.hang") && restart !== "no";
  const isEnded = misdeed.startsWith("standin.panic") || misdeed.startsWith("standin.poweroff");
  return hurt || wiped || isEnded || isGivenUp;
}

/** A start that was answered with success. */
export function noteStart(vm: KnownVm): void {
  vm.desired = "running";
  vm.modes = [vm.nextMode];
  vm.hurt = false;
  vm.wiped = false;
}

/** What is to be in force from the next start on, which may be one that its policy makes, or has made. */
export function noteNextMode(vm: KnownVm, mode: Mode): void {
  if (mayHaveEnded(vm)) vm.modes = [...vm.modes, vm.nextMode];
  vm.nextMode = mode;
}

/** Whether it is ended and started again without end. */
export function isRestless({ desired, misdeed, restart }: KnownVm): boolean {
  if (desired === "stopped" || misdeed === "" || restart === "no") return false;
  return restart === "always" || !misdeed.startsWith("standin.poweroff");
}

/** The statuses that it may have once everything has come to rest, in the mode that is in force. */
export function restingStatuses(vm: KnownVm, mode: Mode): readonly Vm["status"][] {
  const { desired, misdeed, restart, hurt, wiped } = vm;
  if (desired === "stopped") return ["stopped"];
  if (isRestless(vm)) return ["pending", "starting", "running", "crashed", "stopped"];
  if (misdeed.startsWith("standin.panic")) return ["crashed"];
  // It may be killed before it does what it was told to, or do it so early that it did not start.
  if (misdeed.startsWith("standin.poweroff")) return ["stopped", "crashed"];
  // No DHCP server answers in the tests' networks.
  const up: readonly Vm["status"][] = mode === "dhcp" ? ["starting"] : ["running"];
  // On a busy machine it hangs before it has called home.
  if (misdeed.startsWith("standin.hang"))
    return hurt || wiped ? ["starting", "running", "crashed"] : ["starting", "running"];
  if (wiped) return ["starting", "running", "crashed"];
  return hurt && restart === "no" ? [...up, "crashed"] : up;
}

/** Every way in which what volantd shows of a VM is not what is known of it; nothing about its status. */
export function contradictions(known: KnownVm, name: string, shown: Vm): string[] {
  const found: string[] = [];
  const expect = (what: string, actual: unknown, expected: readonly unknown[]): void => {
    if (!expected.includes(actual)) found.push(`${name}: ${what} is ${String(actual)}, not ${expected.join(" or ")}`);
  };
  const modes = mayHaveEnded(known) ? [...known.modes, known.nextMode] : known.modes;
  expect("id", shown.id, [known.id]);
  expect("mode", shown.network.mode, modes);
  expect("restart", shown.restart ?? "no", [known.restart]);
  const published = shown.network.published ?? [];
  expect("number of published ports", published.length, [known.ports.length]);
  for (const [index, { guest, host }] of known.ports.entries()) {
    const port = published[index];
    expect(`guest port ${index}`, port?.port, [guest]);
    if (host !== "any") expect(`host port ${index}`, port?.host_port, [host]);
  }
  if (known.address !== undefined && shown.network.mode === "bridged") {
    expect("address", shown.ip_address, [known.address]);
  }
  return found;
}

/** What two VMs must never have in common. */
export function clashes(vms: readonly Vm[]): string[] {
  const seen = new Map<string, string>();
  const found: string[] = [];
  for (const { name, id, ip_address, mac_address, vsock_cid, pid, network } of vms) {
    const { tap, published = [] } = network;
    const ports = published.map(({ host_address, host_port }) => `port ${host_address}:${host_port}`);
    const marks = [`id ${id}`, `name ${name}`, `MAC ${mac_address}`, `context id ${vsock_cid}`, ...ports];
    if (ip_address !== "") marks.push(`address ${ip_address}`);
    if (tap !== undefined) marks.push(`tap ${tap}`);
    if (pid !== undefined) marks.push(`process ${pid}`);
    for (const mark of marks) {
      const other = seen.get(mark);
      if (other !== undefined) found.push(`${other} and ${name} both have ${mark}`);
      seen.set(mark, name);
    }
  }
  return found;
}
