import { Type, type Static } from "typebox";

const closed = { additionalProperties: false } as const;

/** What carries data into a guest. The control link is virtio-serial always. */
export const DataTransport = Type.Union([Type.Literal("vsock"), Type.Literal("virtio-serial")]);
export type DataTransport = Static<typeof DataTransport>;

export const Health = Type.Object({ status: Type.Literal("ok") }, closed);
export type Health = Static<typeof Health>;

/** Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats). */
export const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

export const ErrorBody = Type.Object(
  { error: Type.String({ description: "One sentence" }), code: Type.String(), hint: Type.Optional(Type.String()) },
  closed,
);
export type ErrorBody = Static<typeof ErrorBody>;

/** An OpenAPI document: of volantd, or of a workload, which may speak an older version of it. */
export const OpenApiDocument = Type.Object(
  {
    openapi: Type.Optional(Type.String()),
    info: Type.Optional(Type.Unknown()),
    paths: Type.Record(Type.String(), Type.Unknown()),
  },
  { additionalProperties: true },
);
export type OpenApiDocument = Static<typeof OpenApiDocument>;

export const SystemInfo = Type.Object(
  {
    status: Type.Literal("ok"),
    version: Type.String(),
    api_listen_addr: Type.String(),
    api_advertise_addr: Type.String(),
    host_ip: Type.String(),
    bridge: Type.String(),
    subnet: Type.String(),
    installation: Type.String(),
    network: Type.Union([Type.Literal("bridge"), Type.Literal("noop")], { description: "VOLANT_NETWORK" }),
    hypervisor: Type.Object(
      {
        name: Type.String(),
        version: Type.String(),
        accelerator: Type.Union([Type.Literal("kvm"), Type.Literal("tcg")]),
      },
      closed,
    ),
    transport: Type.Object(
      {
        data: DataTransport,
        wanted: Type.Union([Type.Literal("off"), Type.Literal("auto"), Type.Literal("on")], {
          description: "VOLANT_VSOCK",
        }),
        reason: Type.Optional(Type.String({ description: "Why it is not vsock" })),
      },
      { ...closed, description: "How exec, forward and the proxy reach the guests of VMs that are started now" },
    ),
  },
  closed,
);
export type SystemInfo = Static<typeof SystemInfo>;

export const SystemSummary = Type.Object(
  {
    total_vms: Type.Integer(),
    by_status: Type.Record(Type.String(), Type.Integer()),
    by_runtime: Type.Record(Type.String(), Type.Integer()),
    total_plugins: Type.Integer(),
    enabled_plugins: Type.Integer(),
    plugins: Type.Array(Type.Object({ name: Type.String(), version: Type.String(), enabled: Type.Boolean() }, closed)),
  },
  closed,
);
export type SystemSummary = Static<typeof SystemSummary>;
