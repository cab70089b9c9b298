export { ArtifactClient, type ArtifactOptions } from "./artifacts.ts";
export { ImageClient, PluginClient, SystemClient, VmClient, VolantClient, type VmPage } from "./client.ts";
export type { VmConsole } from "./console.ts";
export type { CallOptions } from "./call-options.ts";
export { DeploymentClient, type DeploymentWaitOptions } from "./deployments.ts";
export type { EventOptions } from "./events.ts";
export { FileClient, type FileCallOptions, type GuestContent } from "./files.ts";
export { KeyClient } from "./keys.ts";
export type { LogOptions } from "./logs.ts";
export type { VmProcess } from "./process.ts";
export type { Operation, QueryPairs } from "./operations.ts";
export { VfioClient, type ValidateOptions } from "./vfio.ts";
export type { Answer, AnswerHeaders, AnyCall, Fetch, SentRequest, TransportOptions, UploadBody } from "./transport.ts";
export type { WaitOptions } from "./wait.ts";
export {
  WorkloadClient,
  type ActionAnswer,
  type OperationInput,
  type PluginActionOptions,
  type WorkloadRequest,
} from "./workloads.ts";
export type { ExecExit, ExecStart, TerminalSize } from "@volant/contract/exec-frames";
export { VolantError, type ErrorCode } from "@volant/contract/errors";
