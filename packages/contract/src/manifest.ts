import { Type, type Static } from "typebox";
import { Name, PluginName } from "./names.ts";

/** Every object of the contract refuses unknown fields: a typo must never be a setting that is silently ignored. */
const closed = { additionalProperties: false } as const;

/** What the description of a field says that is accepted by the schema and refused by volantd: nothing is stored in silence. */
const NOT_YET = "Not supported yet: answered with 501";

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
  { ...closed, description: "Environment variables, name to value" },
);

export const NetworkMode = Type.Union([Type.Literal("bridged"), Type.Literal("vsock"), Type.Literal("dhcp")]);
export type NetworkMode = Static<typeof NetworkMode>;

export const Network = Type.Object(
  {
    mode: Type.Optional(
      Type.String({
        maxLength: 16,
        description:
          "bridged (default), vsock or dhcp; compared trimmed and in lower case. Mode vsock has no Ethernet, and takes none of the other fields",
      }),
    ),
    bridge: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 15,
        description:
          "Bridge to join; default is the managed bridge. In mode dhcp also one that the operator has allowed; any other in mode bridged is not supported yet (501)",
      }),
    ),
    tap: Type.Optional(
      Type.String({ minLength: 1, maxLength: 15, description: "Name of the tap; default: made from the VM's name" }),
    ),
    subnet: Type.Optional(
      Type.String({
        maxLength: 18,
        description: "Mode bridged only: must be the managed network's, such as 192.168.127.0/24",
      }),
    ),
    gateway: Type.Optional(
      Type.String({
        maxLength: 15,
        description: "Mode bridged only: must be the managed network's, such as 192.168.127.1",
      }),
    ),
    auto_assign: Type.Optional(
      Type.Boolean({
        description:
          "Whether the host gives the VM an address: true (default) in mode bridged, where false is not supported yet (501); false in mode dhcp",
      }),
    ),
  },
  { ...closed, description: "How the VM is connected; a VM's own is taken whole in place of its plugin's" },
);
export type Network = Static<typeof Network>;

/** What a guest may send. Apart from the network, so that choosing another mode never loosens it. */
export const Policy = Type.Object(
  {
    anti_spoof: Type.Optional(
      Type.Boolean({
        description:
          "Hold the guest to its own hardware and IPv4 address (default: true). Only the operator may say false, for a VM",
      }),
    ),
  },
  { ...closed, description: "What a guest may send; a manifest may only tighten it" },
);
export type Policy = Static<typeof Policy>;

export const RestartPolicy = Type.Union([Type.Literal("no"), Type.Literal("on-failure"), Type.Literal("always")], {
  description:
    "Whether a VM that ends without a user's order is started again: never; after a crash; or after a power-off or reset of the guest's own, too",
});
export type RestartPolicy = Static<typeof RestartPolicy>;

export const Resources = Type.Object(
  {
    cpu_cores: Type.Integer({ minimum: 1, maximum: 255, description: "Processors" }),
    memory_mb: Type.Integer({
      minimum: 1,
      maximum: 16_777_216,
      description: "Memory in MiB; a guest needs 72, and twice its unpacked initramfs",
    }),
  },
  { ...closed, description: "What a VM gets, unless it is created with other values" },
);
export type Resources = Static<typeof Resources>;

export const Workload = Type.Object(
  {
    type: Type.Optional(Type.Literal("http", { description: "What the workload speaks" })),
    base_url: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 2048,
        description: "Where the workload listens, seen from inside the guest, such as http://127.0.0.1:80",
      }),
    ),
    entrypoint: Type.Optional(
      Type.Array(Type.String({ maxLength: 131_072 }), {
        minItems: 1,
        maxItems: 1024,
        description: "The program to run in the guest, and its arguments; no shell reads them. A plugin needs it",
      }),
    ),
    env: Type.Optional(Environment),
    workdir: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 4095,
        pattern: "^/",
        description: "Where the program starts; default: /",
      }),
    ),
  },
  { ...closed, description: "The program that the guest is for" },
);
export type Workload = Static<typeof Workload>;

const DiskFormat = Type.Union([Type.Literal("raw"), Type.Literal("qcow2")], {
  description: "How the file holds the disk",
});

export const Rootfs = Type.Object(
  {
    url: Type.String({ minLength: 1, maxLength: 4096, description: "http(s)://, file:// or an absolute path" }),
    checksum: Type.Optional(Checksum),
    format: Type.Optional(DiskFormat),
  },
  { ...closed, description: `A disk with the guest's root file system. ${NOT_YET}` },
);
export type Rootfs = Static<typeof Rootfs>;

export const Initramfs = Type.Object(
  {
    url: Type.String({ minLength: 1, maxLength: 4096, description: "http(s)://, file:// or an absolute path" }),
    checksum: Type.Optional(Checksum),
  },
  {
    ...closed,
    description: "The guest's files, as a cpio archive (newc), compressed or not. So far each plugin needs it",
  },
);
export type Initramfs = Static<typeof Initramfs>;

export const Disk = Type.Object(
  {
    name: Name,
    source: Type.String({ minLength: 1, maxLength: 4096, description: "http(s)://, file:// or an absolute path" }),
    checksum: Type.Optional(Checksum),
    format: Type.Optional(DiskFormat),
    readonly: Type.Optional(Type.Boolean({ description: "Whether the guest may only read it" })),
    target: Type.Optional(Type.String({ maxLength: 255, description: "The device it is in the guest, such as vdb" })),
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
    timeout_ms: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 600_000, description: "Milliseconds for one answer; default: 1000" }),
    ),
  },
  { ...closed, description: "How the agent tells that the workload is well; a VM is running once it was answered" },
);
export type HealthCheck = Static<typeof HealthCheck>;

export const Action = Type.Object(
  {
    description: Type.Optional(Type.String({ maxLength: 4096, description: "What it does, for readers" })),
    method: Type.String({ pattern: "^[A-Z]+$", maxLength: 16, description: "HTTP method, in capitals" }),
    path: Type.String({ pattern: "^/", maxLength: 2048, description: "Path of the workload" }),
    timeout_ms: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 3_600_000,
        description: "Milliseconds for the whole answer; default: 30000",
      }),
    ),
  },
  closed,
);

const CloudInitDocument = Type.Object(
  {
    inline: Type.Optional(Type.Boolean({ description: "Whether content is the document" })),
    content: Type.Optional(Type.String({ description: "The document" })),
    path: Type.Optional(Type.String({ maxLength: 4096, description: "The file that holds the document" })),
  },
  { ...closed, description: "A document, in the manifest or in a file" },
);

export const CloudInit = Type.Object(
  {
    datasource: Type.Optional(Type.Literal("NoCloud", { description: "How the guest's cloud-init finds it" })),
    seed_mode: Type.Optional(Type.Literal("vfat", { description: "File system of the disk that holds it" })),
    user_data: Type.Optional(CloudInitDocument),
    meta_data: Type.Optional(CloudInitDocument),
    network_config: Type.Optional(CloudInitDocument),
  },
  { ...closed, description: `Documents for the guest's cloud-init. ${NOT_YET}` },
);

export const Devices = Type.Object(
  {
    pci_passthrough: Type.Optional(
      Type.Array(Type.String({ maxLength: 64 }), {
        maxItems: 64,
        description: "PCI addresses of the host's devices that the guest gets, such as 0000:01:00.0",
      }),
    ),
    allowlist: Type.Optional(
      Type.Array(Type.String({ maxLength: 64 }), {
        maxItems: 1024,
        description: "Which devices may be given, as vendor:device, such as 10de:*",
      }),
    ),
  },
  { ...closed, description: `Devices of the host for the guest. ${NOT_YET}` },
);

/** What to run: the document that volantd keeps of a plugin. */
export const Manifest = Type.Object(
  {
    schema_version: Type.Optional(
      Type.String({ maxLength: 32, description: "Version of the manifest's format: 1. Kept and shown" }),
    ),
    name: PluginName,
    version: Type.String({ minLength: 1, maxLength: 128, description: "The plugin's version, in words of its own" }),
    runtime: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 63,
        description: "Kind of workload, told to the guest and a filter of lists; default: the plugin's name",
      }),
    ),
    image: Type.Optional(
      Type.String({ maxLength: 4096, description: "Which image the files were made from. Kept and shown" }),
    ),
    image_digest: Type.Optional(Type.String({ maxLength: 256, description: "That image's digest. Kept and shown" })),
    enabled: Type.Optional(
      Type.Boolean({ description: "Whether VMs may be made from it once it is installed; default: true" }),
    ),
    openapi: Type.Optional(
      Type.String({
        maxLength: 262_144,
        description:
          "Where the workload serves its OpenAPI document: a path, or a URL under its base_url; or the document itself. volar plugins install also takes a file beside the manifest, and puts its document here",
      }),
    ),
    labels: Type.Optional(
      Type.Record(Type.String(), Type.String(), {
        description: "Words about the plugin, name to value. Kept and shown",
      }),
    ),
    resources: Resources,
    workload: Workload,
    rootfs: Type.Optional(Rootfs),
    initramfs: Type.Optional(Initramfs),
    disks: Type.Optional(Type.Array(Disk, { maxItems: 64, description: `Further disks. ${NOT_YET}` })),
    health_check: Type.Optional(HealthCheck),
    actions: Type.Optional(
      Type.Record(Type.String(), Action, { description: "Requests to the workload that have names, by these" }),
    ),
    cloud_init: Type.Optional(CloudInit),
    network: Type.Optional(Network),
    policy: Type.Optional(Policy),
    restart: Type.Optional(RestartPolicy),
    devices: Type.Optional(Devices),
  },
  closed,
);
export type Manifest = Static<typeof Manifest>;

/** A manifest as people write it: `$schema` tells an editor where its schema is, says nothing of the plugin, and is not sent to volantd. */
export const ManifestFile = Type.Object(
  {
    $schema: Type.Optional(
      Type.String({ maxLength: 4096, description: "Where this schema is, for editors; not part of the plugin" }),
    ),
    ...Manifest.properties,
  },
  {
    ...closed,
    title: "Manifest of a Volant plugin",
    description: "What to run: the document that volar plugins install reads",
  },
);
export type ManifestFile = Static<typeof ManifestFile>;
