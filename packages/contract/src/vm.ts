import { Type, type Static } from "typebox";
import {
  CloudInit,
  Devices,
  Environment,
  Initramfs,
  Manifest,
  Network,
  NetworkMode,
  Policy,
  Resources,
  RestartPolicy,
  Rootfs,
} from "./manifest.ts";
import { Name, PluginName, VmName } from "./names.ts";
import { DataTransport } from "./system.ts";

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
    port: Type.Integer({ minimum: 1, maximum: 65_535, description: "In the guest" }),
    host_port: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 65_535, description: "Default: one that is free, which the VM then keeps" }),
    ),
    host_address: Type.Optional(
      Type.String({
        maxLength: 45,
        description:
          "Where the host listens; default 127.0.0.1: programs of the host alone. 0.0.0.0 and :: are for everyone who reaches it",
      }),
    ),
    mode: Type.Optional(Type.String({ maxLength: 32, description: "forward, which is the default" })),
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
    policy: Type.Optional(Policy),
    restart: Type.Optional(RestartPolicy),
    initramfs: Type.Optional(Initramfs),
    rootfs: Type.Optional(Rootfs),
    env: Type.Optional(Environment),
    nameservers: Type.Optional(
      Type.Array(Type.String({ maxLength: 45 }), {
        maxItems: 3,
        description: "DNS servers for the guest; at most 3 (resolv.conf(5), MAXNS)",
      }),
    ),
    ip_address: Type.Optional(
      Type.String({
        maxLength: 45,
        description:
          "An address of the managed subnet that is kept for this VM all its life, in whatever mode it is; empty: none",
      }),
    ),
    mac_address: Type.Optional(
      Type.String({ maxLength: 64, description: "The guest's MAC address, for life; fixed when the VM is created" }),
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

/** A port of a guest that is reached through a port of this host, in every network mode alike. */
export const VmPublishedPort = Type.Object(
  {
    name: Type.Optional(Name),
    protocol: Type.Literal("tcp"),
    port: Type.Integer({ description: "In the guest" }),
    host_address: Type.String(),
    host_port: Type.Integer(),
    listening: Type.Boolean({ description: "Whether the host listens; it tries again while it can't" }),
    reason: Type.Optional(Type.String({ description: "Why it does not listen" })),
  },
  closed,
);
export type VmPublishedPort = Static<typeof VmPublishedPort>;

export const VmNetwork = Type.Object(
  {
    mode: NetworkMode,
    tap: Type.Optional(Type.String()),
    bridge: Type.Optional(Type.String()),
    addresses: Type.Array(Type.String({ description: "address/prefix length" })),
    lease: Type.Optional(VmLease),
    dropped_frames: Type.Optional(
      Type.Integer({ description: "Frames of the guest that its policy did not let through, since its tap was made" }),
    ),
    published: Type.Optional(Type.Array(VmPublishedPort, { description: "Absent where there are none" })),
  },
  closed,
);

export const VmAgent = Type.Object(
  {
    attached: Type.Boolean({ description: "The agent has called home and its link is up" }),
    responding: Type.Optional(
      Type.Boolean({ description: "False while an agent that has answered before does not; absent before it has" }),
    ),
    version: Type.Optional(Type.String()),
    kernel: Type.Optional(Type.String({ description: "Release of the guest's kernel" })),
    workload: Type.Optional(Type.String({ description: "State of the workload as the agent reports it" })),
    health: Type.Optional(Type.Union([Type.Literal("unknown"), Type.Literal("healthy"), Type.Literal("unhealthy")])),
    transport: Type.Optional(DataTransport),
    transport_reason: Type.Optional(Type.String({ description: "Why data does not go over vsock as it should" })),
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
    policy: Type.Optional(Policy),
    restart: Type.Optional(RestartPolicy),
    restarts: Type.Optional(
      Type.Integer({ description: "How often it was started again by itself since a user last started it" }),
    ),
    next_restart_at: Type.Optional(Timestamp),
    deployment: Type.Optional(Type.String()),
    pending_config: Type.Optional(
      Type.Boolean({ description: "Its configuration was changed in a way that takes effect at its next start" }),
    ),
    agent: VmAgent,
  },
  closed,
);
export type Vm = Static<typeof Vm>;
