/**
 * The port to a hypervisor. A runtime knows nothing of the store, the API or the plan: it is told what to launch, and reports
 * what it sees running. Observation reads the kernel's process table, never a memory of what was started.
 */

import type { DataTransport } from "../guest/data-link.ts";
import type { DataChoice } from "./vsock/choice.ts";

/** A kernel to boot, as `volar kernel install` laid it out. */
export interface KernelFiles {
  readonly bzImagePath: string;
  /** The same kernel uncompressed (ELF with a PVH note), where it could be cut out. */
  readonly elfPath?: string;
}

/** Everything one launch needs. Paths are absolute and readable by root; the runtime hands them on as descriptors. */
export interface LaunchSpec {
  readonly vmId: number;
  /** Counts the starts of this VM; marks the process, so that a restart can tell the old process from the new one. */
  readonly generation: number;
  readonly name: string;
  readonly cpuCores: number;
  readonly memoryMib: number;
  readonly kernel: KernelFiles;
  /** Volant's base initramfs with the plugin's appended. */
  readonly initrdPath: string;
  /** The guest's words (ip=, volant.*, the user's). The runtime adds those that its machine type and console need. */
  readonly cmdline: string;
  /** Absent where the guest has no Ethernet. */
  readonly network?: { readonly tap: string; readonly mac: string };
  readonly vsockCid: number;
}

/** A hypervisor process of this installation. `pid` alone can be reused by the kernel; with `startTicks` it can't. */
export interface HypervisorProcess {
  readonly vmId: number;
  readonly generation: number;
  readonly pid: number;
  /** Field 22 of proc_pid_stat(5): start time in clock ticks since boot. */
  readonly startTicks: bigint;
}

export interface RuntimeInfo {
  readonly name: "qemu" | "cloud-hypervisor" | "firecracker";
  readonly path: string;
  readonly version: string;
  readonly accelerator: "kvm" | "tcg";
  /** Machine type, such as `microvm` or `q35`. */
  readonly machine: string;
  /** How data reaches the guests of VMs that are started now. */
  readonly data: DataChoice;
}

/** Unix sockets of one VM. */
export interface GuestSockets {
  readonly control: string;
  readonly stream: string;
  readonly serial: string;
}

/** Why a hypervisor ended, as far as it could be learned. */
export interface ExitReport {
  /** `guest-shutdown` (power-off), `guest-reset` (also a kernel panic with panic=-1), `guest-panic`, `host-signal`, `error`, … */
  readonly cause: string;
  /** One sentence for the user. */
  readonly message: string;
  /** The last lines of the console, control characters removed. */
  readonly consoleTail: readonly string[];
}

export interface Runtime {
  readonly info: RuntimeInfo;
  /** The unprivileged user and group that this VM's hypervisor runs as; its tap must be owned by them. */
  identity(vmId: number): { readonly uid: number; readonly gid: number };
  sockets(vmId: number): GuestSockets;
  /** All live hypervisor processes that carry this installation's mark. Zombies don't count. */
  observe(): Promise<readonly HypervisorProcess[]>;
  /** All live processes with this installation's mark that serve a VM's vsock device. */
  observeBackends(): Promise<readonly HypervisorProcess[]>;
  /**
   * A way for data into this run of a VM, besides the link's own sockets; undefined where none is wanted. It may turn out to be of no use, and says why.
   */
  dataTransport(vmId: number, generation: number): DataTransport | undefined;
  /** Whether this process may hold another VM. @throws VolantError `exhausted` */
  checkRoom(): void;
  /** Ids of the VMs that have a runtime folder. */
  listFolders(): Promise<readonly number[]>;
  /**
   * Starts a hypervisor and resolves once its control socket answers. Repeatable: what an earlier, interrupted launch left in the
   * runtime folder is replaced.
   *
   * @throws VolantError `not_ready` (no hypervisor, kernel missing, tap refused, …) with the hypervisor's own last words;
   *   `exhausted` when a limit of the host's was met (processes, descriptors, disk), so that the hypervisor was not really tried
   */
  launch(spec: LaunchSpec, signal: AbortSignal): Promise<HypervisorProcess>;
  /** Resolves when the process is gone; for processes that this volantd started and for adopted ones alike. Rejects when the runtime is closed first. */
  waitForExit(process: HypervisorProcess): Promise<void>;
  /** Whether its processors were told to stand still, as far as it has said. */
  isPaused(process: HypervisorProcess): boolean;
  /** Presses the virtual power button. Resolves when the hypervisor has taken the command, not when the guest is off. */
  pressPowerButton(process: HypervisorProcess): Promise<void>;
  /** SIGKILL, after checking that pid and start time still match; resolves once the process is gone. Gone already is no error. */
  kill(process: HypervisorProcess): Promise<void>;
  /** Ends what serves the vsock device of a hypervisor that is gone; resolves once it is gone, too. Gone already is no error. */
  endBackend(process: HypervisorProcess): Promise<void>;
  /** What is known of the end of this generation; for a VM whose process is gone. */
  exitReport(vmId: number, generation: number): Promise<ExitReport>;
  /** The last lines of the console, control characters removed; at most 32 KiB. Of a VM that has none, none. */
  consoleTail(vmId: number, limit: number): Promise<readonly string[]>;
  /** Removes the VM's runtime folder. Absent already is no error. */
  removeFolder(vmId: number): Promise<void>;
  /** Lets go of sockets and watchers, and leaves every VM running. */
  close(): Promise<void>;
}
