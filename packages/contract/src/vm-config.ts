/** A VM's configuration as a resource: read, patched, and every version of it. */
import { Type, type Static, type TNull, type TOptional, type TUnion } from "typebox";
import { Timestamp, VmConfig } from "./vm.ts";

const closed = { additionalProperties: false } as const;

type Fields = (typeof VmConfig)["properties"];
type Nullable = {
  [Field in keyof Fields]: Fields[Field] extends TOptional<infer Schema> ? TOptional<TUnion<[Schema, TNull]>> : never;
};

/**
 * What `PATCH vms/:name/config` takes: an absent field and one that is null are left alone, any other replaces what was there, objects and
 * lists as a whole.
 */
export const VmConfigPatch = Type.Object(
  Object.fromEntries(
    Object.entries(VmConfig.properties).map(([name, schema]) => [
      name,
      Type.Optional(Type.Union([schema, Type.Null()])),
    ]),
  ) as unknown as Nullable,
  closed,
);
export type VmConfigPatch = { [Field in keyof VmConfig]?: VmConfig[Field] | null };

export const VmConfigState = Type.Object(
  {
    version: Type.Integer({ description: "Grows by one with every change" }),
    updated_at: Timestamp,
    config: VmConfig,
    pending: Type.Boolean({ description: "Whether some of it takes effect only at the VM's next start" }),
  },
  closed,
);
export type VmConfigState = Static<typeof VmConfigState>;

export const VmConfigVersion = Type.Object(
  { id: Type.Integer(), version: Type.Integer(), updated_at: Timestamp, config: VmConfig },
  closed,
);
export type VmConfigVersion = Static<typeof VmConfigVersion>;

/** How many versions of a VM's configuration are remembered. */
export const MAX_CONFIG_HISTORY = 100;

export const ConfigHistoryQuery = Type.Object(
  {
    limit: Type.Optional(
      Type.Integer({ minimum: 1, maximum: MAX_CONFIG_HISTORY, description: "At most so many; default: all" }),
    ),
  },
  closed,
);
