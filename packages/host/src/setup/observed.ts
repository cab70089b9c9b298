/** What set-up looks at before it decides: plain data. A part that could not be looked at is undefined. */
import type { ForwardChain } from "./forward-chains.ts";
import type { ObservedStation } from "./lan.ts";
import type { ObservedTable } from "./nft-table.ts";

export interface ObservedLink {
  readonly name: string;
  readonly index: number;
  /** rtnl_link_ops kind, such as `bridge`; undefined for a physical card. */
  readonly kind: string | undefined;
  readonly mac: string;
  readonly up: boolean;
  readonly alias: string | undefined;
  /** Index of the bridge that it is a port of. */
  readonly master: number | undefined;
}

export interface ObservedAddress {
  readonly link: string;
  readonly address: string;
  readonly prefixLength: number;
}

export interface ObservedRoute {
  /** The block it leads to, such as `10.0.0.0/8`; `0.0.0.0/0` is the default route. */
  readonly destination: string;
  /** The link it leaves by; undefined for one without (unreachable, several next hops). */
  readonly link: string | undefined;
  /** Whether it leads somewhere: blackhole, unreachable and prohibit routes do not. */
  readonly leads: boolean;
}

export interface ObservedNetwork {
  readonly links: readonly ObservedLink[];
  /** IPv4 only. */
  readonly addresses: readonly ObservedAddress[];
  /** IPv4, every table but the kernel's own `local`. */
  readonly routes: readonly ObservedRoute[];
}

export interface ObservedChain {
  readonly table: string;
  readonly name: string;
  /** `accept` or `drop` for a base chain. */
  readonly policy: string | undefined;
}

/** By the firewall that was asked for. */
export type ObservedFirewall =
  | { readonly state: "missing" }
  /** The program is there, and fails: for want of root, or because the kernel lacks a part. */
  | { readonly state: "unusable"; readonly reason: string }
  | {
      readonly state: "usable";
      /** iptables: keys (ruleKey) of the managed rules that are in place. */
      readonly rules: readonly string[];
      /** iptables: the kernel tells nobody when these rules change, since they are the legacy iptables'. Absent where nobody asked. */
      readonly untold?: boolean;
      /** IPv4 tables and chains, where nft can tell; iptables by itself can't. */
      readonly containers:
        | { readonly tables: readonly string[]; readonly chains: readonly ObservedChain[] }
        | undefined;
      /** nftables: our table; undefined when it is not there. */
      readonly table: ObservedTable | undefined;
      /** Chains of other tables that decide on forwarded packets, too; undefined where nobody looked, or nft can't tell. */
      readonly otherChains: readonly ForwardChain[] | undefined;
    };

export interface ObservedService {
  /** systemd is this machine's init (sd_booted(3): /run/systemd/system exists) and systemctl is there. */
  readonly systemd: boolean;
  /** What the unit's file holds; undefined when there is none. */
  readonly unitText: string | undefined;
  /** `systemctl is-enabled` says so. */
  readonly enabled: boolean;
}

/** Where the kernel's state lives: gone when either of the two is. */
export interface KernelIdentity {
  readonly bootId: string;
  /** As /proc/self/ns/net links to, such as `net:[4026531840]`. */
  readonly networkNamespace: string;
}

export interface ObservedHost {
  /** The process may change the host's network. */
  readonly root: boolean;
  readonly kernel: KernelIdentity;
  /** Other network namespaces that the record names still exist: what it tells of is there, not here. */
  readonly recordedNamespaceAlive: boolean;
  readonly network: ObservedNetwork | undefined;
  /**
   * Forwarding and every net/ipv4/conf setting, by path below /proc/sys; when it is already on, only forwarding and those that were asked for by
   * name, unless everything was.
   */
  readonly sysctls: Readonly<Record<string, string>>;
  /** Those that were asked for, by name, and are there. */
  readonly stations: Readonly<Record<string, ObservedStation>>;
  readonly firewall: ObservedFirewall;
  readonly service: ObservedService;
}
