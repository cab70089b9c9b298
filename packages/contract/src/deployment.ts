/** Deployments: so many VMs alike, kept so, and changed one by one. */
import { Type, type Static } from "typebox";
import { DeploymentName } from "./names.ts";
import { Timestamp, VmConfig } from "./vm.ts";
import { VmConfigPatch } from "./vm-config.ts";

const closed = { additionalProperties: false } as const;

/** As many as a managed network of a few bridges holds; a typing error should not fill a host. */
export const MAX_REPLICAS = 10_000;
/** How many versions of a deployment's configuration are remembered. Those that replicas have are kept beside. */
export const MAX_DEPLOYMENT_HISTORY = 100;
export const DEFAULT_MAX_UNAVAILABLE = 1;
export const DEFAULT_READY_TIMEOUT_MS = 120_000;
export const DEFAULT_MIN_READY_MS = 2000;

const Replicas = Type.Integer({ minimum: 0, maximum: MAX_REPLICAS, description: "VMs named <deployment>-1 and so on" });
const MaxUnavailable = Type.Integer({
  minimum: 1,
  maximum: MAX_REPLICAS,
  description: "How many replicas a roll-out may have down at once",
});
const Paused = Type.Boolean({ description: "A roll-out goes no further; what runs is kept running" });
const ReadyTimeoutMs = Type.Integer({
  minimum: 1000,
  maximum: 86_400_000,
  description: "A replica that a roll-out has changed and that is not ready after this time ends the roll-out",
});
const MinReadyMs = Type.Integer({
  minimum: 0,
  maximum: 86_400_000,
  description:
    "How long a changed replica must have been ready before the roll-out goes on: one that crashes soon is noticed",
});

export const RolloutState = Type.Union([
  Type.Literal("progressing"),
  Type.Literal("complete"),
  Type.Literal("paused"),
  Type.Literal("failed"),
  Type.Literal("deleting"),
]);
export type RolloutState = Static<typeof RolloutState>;

export const Deployment = Type.Object(
  {
    name: DeploymentName,
    desired_replicas: Type.Integer(),
    ready_replicas: Type.Integer({
      description: "Running, their agent connected, and healthy where health is checked",
    }),
    config: VmConfig,
    created_at: Timestamp,
    updated_at: Timestamp,
    updated_replicas: Type.Integer({ description: "Of the version that is wanted, ready or not" }),
    unavailable: Type.Integer({ description: "Of the desired replicas, those that are not ready" }),
    version: Type.Integer({ description: "Of the configuration that is wanted" }),
    max_unavailable: Type.Integer(),
    ready_timeout_ms: Type.Integer(),
    min_ready_ms: Type.Integer(),
    paused: Type.Boolean(),
    rollout: Type.Object(
      {
        state: RolloutState,
        reason: Type.Optional(Type.String({ description: "What it waits for, or why it stopped, as a sentence" })),
      },
      closed,
    ),
  },
  closed,
);
export type Deployment = Static<typeof Deployment>;

export const CreateDeploymentRequest = Type.Object(
  {
    name: DeploymentName,
    replicas: Type.Optional(Replicas),
    config: VmConfig,
    max_unavailable: Type.Optional(MaxUnavailable),
    ready_timeout_ms: Type.Optional(ReadyTimeoutMs),
    min_ready_ms: Type.Optional(MinReadyMs),
    paused: Type.Optional(Paused),
  },
  closed,
);
export type CreateDeploymentRequest = Static<typeof CreateDeploymentRequest>;

/** Absent fields are left alone. `config` is merged as `PATCH vms/:name/config` does it. */
export const DeploymentPatch = Type.Object(
  {
    replicas: Type.Optional(Replicas),
    config: Type.Optional(VmConfigPatch),
    max_unavailable: Type.Optional(MaxUnavailable),
    ready_timeout_ms: Type.Optional(ReadyTimeoutMs),
    min_ready_ms: Type.Optional(MinReadyMs),
    paused: Type.Optional(Paused),
  },
  closed,
);
export type DeploymentPatch = Omit<Static<typeof DeploymentPatch>, "config"> & {
  config?: VmConfigPatch;
};

export const RollbackRequest = Type.Object(
  { version: Type.Integer({ minimum: 1, description: "One of the history" }) },
  closed,
);
export type RollbackRequest = Static<typeof RollbackRequest>;

export const DeploymentVersion = Type.Object(
  {
    id: Type.Integer(),
    version: Type.Integer(),
    updated_at: Timestamp,
    config: VmConfig,
    replicas: Type.Integer({ description: "How many have it now" }),
  },
  closed,
);
export type DeploymentVersion = Static<typeof DeploymentVersion>;

export const DeploymentHistoryQuery = Type.Object(
  { limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, description: "At most so many; default: all" })) },
  closed,
);
