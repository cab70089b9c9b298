import { Type, type Static } from "typebox";
import { Name, PluginName } from "./names.ts";

/** Every object of the contract refuses unknown fields: a typo must never be a setting that is silently ignored. */
const closed = { additionalProperties: false } as const;

/** `sha256:` and 64 lower-case hexadecimal digits (FIPS 180-4). */
export const CHECKSUM_PATTERN = "^sha256:[0-9a-f]{64}$";
export const Checksum = Type.String({
  pattern: CHECKSUM_PATTERN,
  description: "sha256:<64 lower-case hexadecimal digits>",
});

/** Environment variable names as POSIX.1-2017 section 8.1 has them; values are any text without NUL. */
export const Environment = Type.Record(
  Type.String({ pattern: "^[A-Za-z_][A-Za-z0-9_]*$" }),
  Type.String({ maxLength: 131_072 }),
  closed,
);

export const NetworkMode = Type.Union([Type.Literal("bridged"), Type.Literal("vsock"), Type.Literal("dhcp")]);
export type NetworkMode = Static<typeof NetworkMode>;

export const Network = Type.Object(
  {
    mode: Type.Optional(
      Type.String({
        maxLength: 16,
        description: "bridged (default), vsock or dhcp; compared trimmed and in lower case",
      }),
    ),
    bridge: Type.Optional(
      Type.String({ minLength: 1, maxLength: 15, description: "Bridge to join; default is the managed bridge" }),
    ),
    tap: Type.Optional(Type.String({ minLength: 1, maxLength: 15 })),
    subnet: Type.Optional(Type.String({ maxLength: 18 })),
    gateway: Type.Optional(Type.String({ maxLength: 15 })),
    auto_assign: Type.Optional(Type.Boolean()),
  },
  closed,
);
export type Network = Static<typeof Network>;

export const Resources = Type.Object(
  {
    cpu_cores: Type.Integer({ minimum: 1, maximum: 255 }),
    memory_mb: Type.Integer({ minimum: 1, maximum: 16_777_216, description: "MiB" }),
  },
  closed,
);
export type Resources = Static<typeof Resources>;

export const Workload = Type.Object(
  {
    type: Type.Optional(Type.Literal("http")),
    base_url: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 2048,
        description: "Where the workload listens, seen from inside the guest",
      }),
    ),
    entrypoint: Type.Optional(Type.Array(Type.String({ maxLength: 131_072 }), { minItems: 1, maxItems: 1024 })),
    env: Type.Optional(Environment),
    workdir: Type.Optional(Type.String({ minLength: 1, maxLength: 4095, pattern: "^/" })),
  },
  closed,
);
export type Workload = Static<typeof Workload>;

export const Rootfs = Type.Object(
  {
    url: Type.String({ minLength: 1, maxLength: 4096 }),
    checksum: Type.Optional(Checksum),
    format: Type.Optional(Type.Union([Type.Literal("raw"), Type.Literal("qcow2")])),
  },
  closed,
);
export type Rootfs = Static<typeof Rootfs>;

export const Initramfs = Type.Object(
  {
    url: Type.String({ minLength: 1, maxLength: 4096, description: "http(s)://, file:// or an absolute path" }),
    checksum: Type.Optional(Checksum),
  },
  closed,
);
export type Initramfs = Static<typeof Initramfs>;

export const Disk = Type.Object(
  {
    name: Name,
    source: Type.String({ minLength: 1, maxLength: 4096 }),
    checksum: Type.Optional(Checksum),
    format: Type.Optional(Type.Union([Type.Literal("raw"), Type.Literal("qcow2")])),
    readonly: Type.Optional(Type.Boolean()),
    target: Type.Optional(Type.String({ maxLength: 255 })),
  },
  closed,
);

export const HealthCheck = Type.Object(
  {
    endpoint: Type.String({
      minLength: 1,
      maxLength: 2048,
      pattern: "^/",
      description: "Path on the workload's base_url",
    }),
    timeout_ms: Type.Optional(Type.Integer({ minimum: 1, maximum: 600_000 })),
  },
  closed,
);
export type HealthCheck = Static<typeof HealthCheck>;

export const Action = Type.Object(
  {
    description: Type.Optional(Type.String({ maxLength: 4096 })),
    method: Type.String({ pattern: "^[A-Z]+$", maxLength: 16 }),
    path: Type.String({ pattern: "^/", maxLength: 2048 }),
    timeout_ms: Type.Optional(Type.Integer({ minimum: 1, maximum: 3_600_000 })),
  },
  closed,
);

const CloudInitDocument = Type.Object(
  {
    inline: Type.Optional(Type.Boolean()),
    content: Type.Optional(Type.String()),
    path: Type.Optional(Type.String({ maxLength: 4096 })),
  },
  closed,
);

export const CloudInit = Type.Object(
  {
    datasource: Type.Optional(Type.Literal("NoCloud")),
    seed_mode: Type.Optional(Type.Literal("vfat")),
    user_data: Type.Optional(CloudInitDocument),
    meta_data: Type.Optional(CloudInitDocument),
    network_config: Type.Optional(CloudInitDocument),
  },
  closed,
);

export const Devices = Type.Object(
  {
    pci_passthrough: Type.Optional(Type.Array(Type.String({ maxLength: 64 }), { maxItems: 64 })),
    allowlist: Type.Optional(Type.Array(Type.String({ maxLength: 64 }), { maxItems: 1024 })),
  },
  closed,
);

/** What to run: the document that `volar plugins install` reads. */
export const Manifest = Type.Object(
  {
    schema_version: Type.Optional(Type.String({ maxLength: 32 })),
    name: PluginName,
    version: Type.String({ minLength: 1, maxLength: 128 }),
    runtime: Type.Optional(Type.String({ minLength: 1, maxLength: 63, description: "Default: the plugin's name" })),
    image: Type.Optional(Type.String({ maxLength: 4096 })),
    image_digest: Type.Optional(Type.String({ maxLength: 256 })),
    enabled: Type.Optional(Type.Boolean()),
    openapi: Type.Optional(Type.String({ maxLength: 4096 })),
    labels: Type.Optional(Type.Record(Type.String(), Type.String())),
    resources: Resources,
    workload: Workload,
    rootfs: Type.Optional(Rootfs),
    initramfs: Type.Optional(Initramfs),
    disks: Type.Optional(Type.Array(Disk, { maxItems: 64 })),
    health_check: Type.Optional(HealthCheck),
    actions: Type.Optional(Type.Record(Type.String(), Action)),
    cloud_init: Type.Optional(CloudInit),
    network: Type.Optional(Network),
    devices: Type.Optional(Devices),
  },
  closed,
);
export type Manifest = Static<typeof Manifest>;
