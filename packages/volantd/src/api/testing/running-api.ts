/** An API on a free loopback port, over the stand-in. */
import { startApi, type Api, type ApiOptions } from "../server.ts";
import type { ApiConfig } from "../api-config.ts";
import { createStandIn, type StandIn } from "./stand-in.ts";

export interface RunningApi extends StandIn {
  readonly api: Api;
  readonly address: string;
  /** What the API logged as errors. */
  readonly errors: Readonly<Record<string, unknown>>[];
  /** Lines of the audit log. */
  readonly audited: Readonly<Record<string, unknown>>[];
}

/** Starts it; the caller closes `api`. */
export async function runApi(
  config: Partial<ApiConfig> = {},
  options: Partial<Pick<ApiOptions, "heartbeatMs" | "telemetry">> = {},
): Promise<RunningApi> {
  const standIn = createStandIn();
  const errors: Readonly<Record<string, unknown>>[] = [];
  const audited: Readonly<Record<string, unknown>>[] = [];
  const ignore = () => undefined;
  const api = await startApi({
    useCases: standIn.useCases,
    config: { listenHost: "127.0.0.1", listenPort: 0, allowCidrs: [], corsOrigins: [], ...config },
    log: { info: ignore, warn: ignore, error: (fields) => void errors.push(fields) },
    audit: { append: (fields) => void audited.push({ ...fields }) },
    ...options,
  });
  return { ...standIn, api, address: api.address, errors, audited };
}
