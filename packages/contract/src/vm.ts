import { Type, type Static } from "typebox";
import {
  CloudInit,
  Devices,
  Environment,
  Initramfs,
  Manifest,
  Network,
  NetworkMode,
  Resources,
  Rootfs,
} from "./manifest.ts";
import { Name, PluginName, VmName } from "./names.ts";

const closed = { additionalProperties: false } as const;

/** RFC 3339 in UTC, with milliseconds. */
export const Timestamp = Type.String({ pattern: "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z$" });

export const VmStatus = Type.Union([
  Type.Literal("pending"),
  Type.Literal("starting"),
  Type.Literal("running"),
  Type.Literal("stopped"),
  Type.Literal("crashed"),
]);
export type VmStatus = Static<typeof VmStatus>;

export const Expose = Type.Object(
  {
    name: Type.Optional(Name),
    protocol: Type.Optional(Type.Union([Type.Literal("tcp"), Type.Literal("udp")])),
    port: Type.Integer({ minimum: 1, maximum: 65_535 }),
    host_port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_535 })),
    mode: Type.Optional(Type.String({ maxLength: 32 })),
  },
  closed,
);

/** A VM's own settings: each field, where present, wins over the manifest's. */
export const VmConfig = Type.Object(
  {
    plugin: Type.Optional(PluginName),
    runtime: Type.Optional(Type.String({ maxLength: 63 })),
    kernel_cmdline: Type.Optional(
      Type.String({ maxLength: 1024, description: "Added to the guest kernel's command line" }),
    ),
    kernel_override: Type.Optional(Type.String({ maxLength: 4096 })),
    resources: Type.Optional(Type.Partial(Resources, closed)),
    api: Type.Optional(
      Type.Object(
        { host: Type.Optional(Type.String({ maxLength: 255 })), port: Type.Optional(Type.String({ maxLength: 5 })) },
        closed,
      ),
    ),
    manifest: Type.Optional(Manifest),
    devices: Type.Optional(Devices),
    metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
    expose: Type.Optional(Type.Array(Expose, { maxItems: 256 })),
    cloud_init: Type.Optional(CloudInit),
    network: Type.Optional(Network),
    initramfs: Type.Optional(Initramfs),
    rootfs: Type.Optional(Rootfs),
    env: Type.Optional(Environment),
    nameservers: Type.Optional(
      Type.Array(Type.String({ maxLength: 45 }), {
        maxItems: 3,
        description: "DNS servers for the guest; at most 3 (resolv.conf(5), MAXNS)",
      }),
    ),
  },
  closed,
);
export type VmConfig = Static<typeof VmConfig>;

export const CreateVmRequest = Type.Object(
  {
    name: VmName,
    plugin: Type.Optional(PluginName),
    runtime: Type.Optional(Type.String({ minLength: 1, maxLength: 63 })),
    cpu_cores: Type.Optional(Type.Integer({ minimum: 1, maximum: 255 })),
    memory_mb: Type.Optional(Type.Integer({ minimum: 1, maximum: 16_777_216, description: "MiB" })),
    kernel_cmdline: Type.Optional(Type.String({ maxLength: 1024 })),
    api_host: Type.Optional(Type.String({ maxLength: 255 })),
    api_port: Type.Optional(Type.String({ maxLength: 5 })),
    config: Type.Optional(VmConfig),
  },
  closed,
);
export type CreateVmRequest = Static<typeof CreateVmRequest>;

/** What a guest in mode `dhcp` has of a DHCP server, as its agent reports it. */
export const VmLease = Type.Object(
  {
    state: Type.Union(
      [Type.Literal("waiting_for_lease"), Type.Literal("bound"), Type.Literal("renewing"), Type.Literal("rebinding")],
      { description: "Of the client in RFC 2131, 4.4" },
    ),
    server: Type.Optional(Type.String()),
    gateway: Type.Optional(Type.String()),
    nameservers: Type.Array(Type.String()),
    domain: Type.Optional(Type.String()),
    obtained_at: Type.Optional(Timestamp),
    renews_at: Type.Optional(Timestamp),
    rebinds_at: Type.Optional(Timestamp),
    expires_at: Type.Optional(Timestamp),
    reason: Type.Optional(Type.String({ description: "Why there is none yet" })),
  },
  closed,
);
export type VmLease = Static<typeof VmLease>;

export const VmNetwork = Type.Object(
  {
    mode: NetworkMode,
    tap: Type.Optional(Type.String()),
    bridge: Type.Optional(Type.String()),
    addresses: Type.Array(Type.String({ description: "address/prefix length" })),
    lease: Type.Optional(VmLease),
  },
  closed,
);

export const VmAgent = Type.Object(
  {
    attached: Type.Boolean({ description: "The agent has called home and its link is up" }),
    version: Type.Optional(Type.String()),
    kernel: Type.Optional(Type.String({ description: "Release of the guest's kernel" })),
    workload: Type.Optional(Type.String({ description: "State of the workload as the agent reports it" })),
    health: Type.Optional(Type.Union([Type.Literal("unknown"), Type.Literal("healthy"), Type.Literal("unhealthy")])),
  },
  closed,
);

export const Vm = Type.Object(
  {
    id: Type.Integer(),
    name: VmName,
    status: VmStatus,
    reason: Type.Optional(
      Type.String({
        description: "Why it is in this state: waiting_for_agent, waiting_for_lease, deleting, or a sentence",
      }),
    ),
    runtime: Type.String(),
    pid: Type.Optional(Type.Integer({ description: "Process id of the hypervisor" })),
    ip_address: Type.String({ description: "Empty where the mode gives none" }),
    mac_address: Type.String(),
    cpu_cores: Type.Integer(),
    memory_mb: Type.Integer(),
    kernel_cmdline: Type.String(),
    serial_socket: Type.String(),
    created_at: Timestamp,
    updated_at: Timestamp,
    vsock_cid: Type.Integer(),
    plugin: Type.String(),
    network: VmNetwork,
    deployment: Type.Optional(Type.String()),
    agent: VmAgent,
  },
  closed,
);
export type Vm = Static<typeof Vm>;
