/** What the doctor looks at before it judges: plain data. A part that could not be looked at, or was not asked for, is undefined. */
import type { Ipv4Block } from "../ipv4.ts";
import type { ObservedAddress, ObservedLink, ObservedRoute } from "../setup/observed.ts";
import type { ForwardChain } from "../setup/forward-chains.ts";
import type { SetupRecord } from "../setup/record.ts";
import type { FirewallKind } from "../setup/settings.ts";

/** What the host is meant to be. */
export interface DoctorSettings {
  readonly bridge: string;
  /** Such as `192.168.127.0/24`, and the same as numbers. */
  readonly subnet: string;
  readonly block: Ipv4Block;
  readonly hostIp: string;
  readonly workDir: string;
  readonly runtimeDir: string;
  readonly bzImage: string;
  readonly firewall: FirewallKind;
}

export interface SeenLink extends ObservedLink {
  /** Bytes. */
  readonly mtu: number;
}

export interface SeenNetwork {
  readonly links: readonly SeenLink[];
  /** IPv4 only. */
  readonly addresses: readonly ObservedAddress[];
  /** IPv4, every table but the kernel's own `local`. */
  readonly routes: readonly ObservedRoute[];
}

export interface SeenFirewall {
  /** Which of our rules are in place. */
  readonly masquerade: boolean;
  readonly acceptFrom: boolean;
  readonly acceptTo: boolean;
  /** The FORWARD chain of iptables; of nftables, every chain but ours is in `otherChains`. */
  readonly forwardPolicy: "ACCEPT" | "DROP";
  /** The rule of that chain, or of one that it jumps to, which drops guests' packets before any accepts them. */
  readonly droppedBy: string | undefined;
  /** Undefined where there is no nft to tell. */
  readonly otherChains: readonly ForwardChain[] | undefined;
  /** Firewall managers whose chains or tables are in the kernel. */
  readonly frontends: readonly ("firewalld" | "ufw")[];
}

/** A running hypervisor that bears a mark. */
export interface SeenHypervisor {
  readonly pid: number;
  readonly installation: string;
  readonly vmId: number;
  /** Its VM's folder, where its standard error goes; undefined where that can't be read. */
  readonly folder: string | undefined;
  readonly folderDeleted: boolean;
}

export interface SeenProcesses {
  readonly hypervisors: readonly SeenHypervisor[];
  /** Network managers that run in this network namespace. */
  readonly managers: readonly ("NetworkManager" | "systemd-networkd")[];
}

/** volantd's word, through its API. */
export type SeenVolantd =
  | { readonly answers: false; readonly reason: string }
  | {
      readonly answers: true;
      readonly installation: string;
      readonly bridge: string;
      readonly subnet: string;
      /** False where it manages no network; undefined for a volantd that does not say. */
      readonly managed?: boolean;
      readonly vmIds: readonly number[];
      /** Addresses of VMs. */
      readonly leased: readonly string[];
      /** Published ports that are not listened on: of which VM, where, and why. */
      readonly deafPorts?: readonly {
        readonly vm: string;
        readonly endpoint: string;
        readonly reason?: string | undefined;
      }[];
      /** How data reaches guests, and why not over vsock; undefined for a volantd that does not say. */
      readonly transport?: {
        readonly data: "vsock" | "virtio-serial";
        readonly wanted: "off" | "auto" | "on";
        readonly reason?: string;
      };
      /** VMs whose data should go over vsock, and does not. */
      readonly withoutVsock?: readonly { readonly name: string; readonly reason: string }[];
    };

/** Whether this user can use a file; where the way to it is closed, nobody knows whether it is there. */
export type Access = "usable" | "denied" | "missing";

export interface SeenMachine {
  /** The processor has vmx or svm. */
  readonly virtualization: boolean;
  readonly kvmNode: Access;
  readonly tunNode: Access;
  /** Path of a hypervisor; undefined where there is none. */
  readonly hypervisor: string | undefined;
  readonly kernel: Access;
}

export interface SeenClock {
  readonly nowMs: number;
  /** When the newest file that Volant wrote was written; undefined where there is none. */
  readonly newestFileMs: number | undefined;
  /** systemd's word on whether the clock follows a time server; undefined where systemd is not the init. */
  readonly synchronized: boolean | undefined;
}

/** The rules that hold guests to their addresses. */
export interface SeenPolicy {
  /** There is an nft to make them with. */
  readonly nft: boolean;
  /** Undefined where they were not, or could not be, looked at. */
  readonly table: { readonly rules: "absent" | "changed" | "intact"; readonly empty: boolean } | undefined;
  /** Why all that guests send goes by the slower of the guard's two ways; undefined where it does not, or was not looked at. */
  readonly slow: string | undefined;
}

export interface DoctorView {
  readonly root: boolean;
  readonly settings: DoctorSettings;
  /** `unreadable` where it is damaged, or `denied` to this user, with the reason. */
  readonly record: SetupRecord | { readonly unreadable: string; readonly denied: boolean } | undefined;
  readonly network: SeenNetwork | undefined;
  /** By path below /proc/sys. */
  readonly sysctls: Readonly<Record<string, string>>;
  readonly firewall: SeenFirewall | { readonly unseen: string };
  readonly policy: SeenPolicy;
  readonly processes: SeenProcesses | undefined;
  /** Configuration files of network managers that would take a tap of ours: manager and path. */
  readonly seizers: readonly { readonly manager: "NetworkManager" | "systemd-networkd"; readonly path: string }[];
  readonly machine: SeenMachine;
  /** VM ids that have a folder in the runtime folder; undefined where it can't be listed. */
  readonly folders: readonly number[] | undefined;
  readonly clock: SeenClock;
  readonly volantd: SeenVolantd;
  /** Whether volantd manages the network, or leaves it to whoever runs the host (VOLANT_NETWORK=noop). */
  readonly managed: boolean;
}
