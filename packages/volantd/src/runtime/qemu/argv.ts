/**
 * From a launch to QEMU's arguments. Pure.
 *
 * Every file that QEMU uses is opened by volantd and handed over as a descriptor, so QEMU itself needs no right to any path of ours: kernel and
 * initramfs (opened anew through /proc/self/fd, since `-kernel` takes no descriptor set), the console's log, the listening sockets, the tap.
 *
 * The machine, measured under TCG on a two-core AMD EPYC with Debian's 6.1 cloud kernel, exec to the guest's init having loaded its drivers,
 * medians: microvm with the uncompressed kernel 2.0 to 2.2 s (three batches of 4 to 6 boots), microvm with bzImage 2.4 s (3 boots), q35
 * uncompressed 2.3 s (6), q35 with bzImage 2.6 s (6); to the agent's call home 2.1 s and 2.2 s (7 each).
 * So microvm comes first where it is safe, and the uncompressed kernel wherever there is one.
 */
import { constants } from "node:os";
import { VolantError } from "@volant/contract";
import { MAX_CMDLINE_BYTES } from "../kernel-cmdline.ts";
import { formatProcessMark } from "../process-mark.ts";
import type { LaunchSpec } from "../runtime.ts";

export type Machine = "microvm" | "q35";

export interface MachineFacts {
  readonly accelerator: "kvm" | "tcg";
  readonly machine: Machine;
  /** Rate of the host's time stamp counter, which an emulated one counts at, too. */
  readonly tscKhz?: number;
}

/** The descriptors that a QEMU of ours finds open, by number. stdin is empty; stdout and stderr are its log. */
export const FD = {
  kernel: 3,
  initrd: 4,
  console: 5,
  qmp: 6,
  control: 7,
  stream: 8,
  serial: 9,
  tap: 10,
  memory: 11,
  vsock: 12,
} as const;

/** Names of the two virtio-serial ports that the guest's agent looks for. */
export const CONTROL_PORT = "volant.control";
export const STREAM_PORT = "volant.stream";

/** Ports that the guest can be given; number 0 is reserved for a console. On MMIO each costs the guest memory, so the default of 31 is too many. */
const MAX_SERIAL_PORTS = 4;

/**
 * TCG's buffer for translated code, in MiB. Its default may grow to 1 GiB; with 64 MiB a guest boots no slower (median 1.96 s of three boots).
 */
const TRANSLATION_BUFFER_MIB = 64;

/** QEMU splits option values at commas; a doubled comma is one that belongs to the value (qemu(1), "-drive"). */
export function optionValue(value: string): string {
  return value.replaceAll(",", ",,");
}

/**
 * The machine to use. Not microvm under TCG: the one timer that a kernel finds there is that of the local APIC, and it measures that timer's rate in 100 ms
 * of its boot by the time stamp counter (Linux, arch/x86/kernel/apic/apic.c, calibrate_APIC_clock). Where a busy host takes the emulated processor from it
 * just then, the rate is wrong; where it does so for all that time, the kernel says "APIC frequency too slow, disabling apic timer" and goes on without any:
 * the guest boots, its agent calls home, and at the first thing that takes a timer, such as an address for its card, it stands still for ever. At a load of
 * ten to a core 2 of 52 boots ended so, and none of 106 on q35, which has a second clock to measure by, and other timers.
 */
export function chooseMachine(accelerator: "kvm" | "tcg"): Machine {
  return accelerator === "kvm" ? "microvm" : "q35";
}

/** How virtio devices are attached on a machine: which drivers the guest needs. */
export function virtioTransport(machine: Machine): "mmio" | "pci" {
  return machine === "microvm" ? "mmio" : "pci";
}

/**
 * The kernel's whole command line: the machine's words first, then the guest's.
 *
 * @throws VolantError `invalid` when it is longer than the kernel reads, or not plain text
 */
export function kernelCmdline(facts: MachineFacts, guestWords: string): string {
  const words = ["console=ttyS0", "quiet", "panic=-1", "rdinit=/.volant/init"];
  // The kernel's self-tests of its ciphers take 0.7 s on an emulated processor.
  words.push("cryptomgr.notests");
  if (facts.machine === "microvm") words.push("pci=off");
  if (facts.accelerator === "tcg") {
    // It waits for ticks of a timer, and panics without: on a busy host they come too late. KVM's guests leave it out by themselves (kvm_guest_init).
    if (facts.machine === "q35") words.push("no_timer_check");
    // What is told need not be measured, which goes wrong there, too.
    if (facts.tscKhz !== undefined) words.push(`tsc_early_khz=${facts.tscKhz}`);
  }
  if (guestWords !== "") words.push(guestWords);
  const cmdline = words.join(" ");
  if (!/^[\x20-\x7e]*$/.test(cmdline))
    throw new VolantError("invalid", "the kernel command line is not printable ASCII");
  if (cmdline.length > MAX_CMDLINE_BYTES) {
    throw new VolantError(
      "invalid",
      `the kernel command line is ${cmdline.length} bytes long, and the kernel reads ${MAX_CMDLINE_BYTES}`,
      { hint: "shorten kernel_cmdline" },
    );
  }
  return cmdline;
}

function checkNumber(what: string, value: number, least: number, most: number): void {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  throw new VolantError("invalid", `${what} is ${value}, and must be a whole number from ${least} to ${most}`);
}

function socketArguments(id: string, fd: number, extra = ""): string[] {
  return ["-chardev", `socket,id=${id},fd=${fd},server=on,wait=off${extra}`];
}

/**
 * QEMU's arguments, without the program itself.
 *
 * @param withVsock whether it finds a vsock device's backend, and the guest's memory to share with that, among its descriptors
 * @throws VolantError `invalid` for a number out of range, a MAC that is none, or too long a command line
 */
export function qemuArguments(
  installation: string,
  spec: LaunchSpec,
  facts: MachineFacts,
  withVsock = false,
): string[] {
  checkNumber("cpu_cores", spec.cpuCores, 1, 255);
  checkNumber("memory_mb", spec.memoryMib, 1, 16_777_216);
  const bus = facts.machine === "microvm" ? "device" : "pci";
  const { vmId, generation } = spec;
  const mark = formatProcessMark({ installation, vmId, generation });
  const accelerator = facts.accelerator === "kvm" ? "kvm" : `tcg,tb-size=${TRANSLATION_BUFFER_MIB}`;
  const network = spec.network === undefined ? [] : networkArguments(spec.network.mac, bus);
  return [
    ["-name", `guest=${optionValue(mark)}`],
    ["-accel", accelerator, "-machine", `${facts.machine}${withVsock ? ",memory-backend=memory" : ""}`],
    ["-cpu", facts.accelerator === "kvm" ? "host" : "max"],
    ["-m", `${spec.memoryMib}M`, "-smp", String(spec.cpuCores)],
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ["-kernel", `/proc/self/fd/${FD.kernel}`, "-initrd", `/proc/self/fd/${FD.initrd}`],
    ["-append", kernelCmdline(facts, spec.cmdline)],
    [...socketArguments("qmp", FD.qmp), "-mon", "chardev=qmp,mode=control"],
    ["-add-fd", `fd=${FD.console},set=1`],
    [...socketArguments("serial", FD.serial, ",logfile=/dev/fdset/1,logappend=on"), "-serial", "chardev:serial"],
    ["-device", `virtio-serial-${bus},max_ports=${MAX_SERIAL_PORTS}`],
    [...socketArguments("control", FD.control), "-device", `virtserialport,chardev=control,name=${CONTROL_PORT}`],
    [...socketArguments("stream", FD.stream), "-device", `virtserialport,chardev=stream,name=${STREAM_PORT}`],
    ["-object", "rng-builtin,id=rng", "-device", `virtio-rng-${bus},rng=rng`],
    network,
    withVsock ? vsockArguments(spec.memoryMib, bus) : [],
  ].flat();
}

/**
 * The backend works on the guest's memory, so that has to be a file, and shared: with `share=off` the guest boots and no byte comes through. QEMU can't make the
 * file itself, since under the file size limit of {@link Confinement} it may not give it its size; one that is given to it has that already.
 */
function vsockArguments(memoryMib: number, bus: "device" | "pci"): string[] {
  return [
    ["-object", `memory-backend-file,id=memory,size=${memoryMib}M,share=on,mem-path=/proc/self/fd/${FD.memory}`],
    ["-chardev", `socket,id=vsock,fd=${FD.vsock}`, "-device", `vhost-user-vsock-${bus},chardev=vsock`],
  ].flat();
}

function networkArguments(mac: string, bus: "device" | "pci"): string[] {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac)) {
    throw new VolantError("invalid", `${JSON.stringify(mac)} is no MAC address`);
  }
  // Without romfile= a PCI card brings firmware for booting from the network, which takes time and is never wanted.
  const rom = bus === "pci" ? ",romfile=" : "";
  return [
    ["-netdev", `tap,id=net0,fd=${FD.tap},vhost=off`],
    ["-device", `virtio-net-${bus},netdev=net0,mac=${mac}${rom}`],
  ].flat();
}

/** Who a hypervisor runs as, and what it may use. */
export interface Confinement {
  /** The path of the program that confines it: kestrel/src/bin/volant-confine.rs. */
  readonly confiner: string;
  readonly uid: number;
  readonly gid: number;
  /** Groups besides its own: the one that may open /dev/kvm, or none. */
  readonly groups: readonly number[];
  /** The most that a file which it writes can grow to. */
  readonly maxFileBytes: number;
  /** How many descriptors it may have; absent for as many as this process. */
  readonly maxOpenFiles?: number;
}

/** Programs that a confined process may be for a moment, in the order in which one replaces the other. */
export const LAUNCH_CHAIN = ["volant-confine", "env"] as const;

/** The guest is more likely to be what the kernel ends when memory runs out than what serves all guests (proc_pid_oom_score_adj(5)). */
const OOM_SCORE_ADJ = 200;

/**
 * Signals that a confined process ignores: with SIGXFSZ ignored, a write over the file size limit fails with EFBIG (setrlimit(2)), which QEMU shrugs off in a
 * console log, and nobody dies of it.
 */
export const IGNORED_SIGNALS: readonly number[] = [constants.signals.SIGXFSZ];

/**
 * The command that drops every privilege and becomes the hypervisor: a chain of exec, one process from first to last. To be started with
 * {@link IGNORED_SIGNALS}.
 */
export function confinedCommand(confinement: Confinement, program: string, args: readonly string[]): string[] {
  const { confiner, uid, gid, groups, maxFileBytes, maxOpenFiles } = confinement;
  return [
    [confiner, "--uid", String(uid), "--gid", String(gid), ...groups.flatMap((group) => ["--group", String(group)])],
    [
      "--file-bytes",
      String(maxFileBytes),
      ...(maxOpenFiles === undefined ? [] : ["--open-files", String(maxOpenFiles)]),
    ],
    ["--oom-score-adj", String(OOM_SCORE_ADJ)],
    [program, ...args],
  ].flat();
}
