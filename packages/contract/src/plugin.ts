import { Type, type Static } from "typebox";
import { Manifest } from "./manifest.ts";
import { PluginName } from "./names.ts";
import { Timestamp } from "./vm.ts";

const closed = { additionalProperties: false } as const;

export const PluginList = Type.Object({ plugins: Type.Array(PluginName) }, closed);
export type PluginList = Static<typeof PluginList>;

export const Plugin = Type.Object(
  {
    name: PluginName,
    version: Type.String(),
    enabled: Type.Boolean(),
    runtime: Type.String(),
    manifest: Manifest,
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  closed,
);
export type Plugin = Static<typeof Plugin>;

export const SetEnabledRequest = Type.Object({ enabled: Type.Boolean() }, closed);
export type SetEnabledRequest = Static<typeof SetEnabledRequest>;
