export {
  ImageClient,
  PluginClient,
  SystemClient,
  VmClient,
  VolantClient,
  type CallOptions,
  type VmPage,
} from "./client.ts";
export type { EventOptions } from "./events.ts";
export type { TransportOptions, UploadBody } from "./transport.ts";
export type { WaitOptions } from "./wait.ts";
export { VolantError, type ErrorCode } from "@volant/contract/errors";
