import { openApiDocument, type RouteResponse } from "@volant/contract";
import type { ReadinessUseCases, SystemUseCases } from "../engine/use-cases.ts";
import type { Handlers } from "./handler.ts";

type SystemRoutes =
  | "health.get"
  | "openapi.get"
  | "openapi.root"
  | "ready.get"
  | "system.info"
  | "system.status"
  | "system.summary";

/** Health, the OpenAPI document, and what is true of the host. */
export function systemHandlers(system: SystemUseCases, readiness: ReadinessUseCases): Handlers<SystemRoutes> {
  // Made at the first request: few clients ask, and volantd should start quickly.
  let document: RouteResponse<"openapi.get"> | undefined;
  const openApi = () => {
    document ??= openApiDocument() as RouteResponse<"openapi.get">;
    return { body: document };
  };
  const ok = () => ({ body: { status: "ok" } as const });
  return {
    "health.get": ok,
    "ready.get": async () => {
      await readiness.check();
      return ok();
    },
    "system.status": ok,
    "openapi.root": openApi,
    "openapi.get": openApi,
    "system.info": () => ({ body: system.info() }),
    "system.summary": () => ({ body: system.summary() }),
  };
}
