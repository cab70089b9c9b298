import { Type, type Static } from "typebox";

const closed = { additionalProperties: false } as const;

export const Health = Type.Object({ status: Type.Literal("ok") }, closed);
export type Health = Static<typeof Health>;

export const ErrorBody = Type.Object(
  { error: Type.String({ description: "One sentence" }), code: Type.String(), hint: Type.Optional(Type.String()) },
  closed,
);
export type ErrorBody = Static<typeof ErrorBody>;

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
    hypervisor: Type.Object(
      {
        name: Type.String(),
        version: Type.String(),
        accelerator: Type.Union([Type.Literal("kvm"), Type.Literal("tcg")]),
      },
      closed,
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
