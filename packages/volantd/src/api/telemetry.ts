/** What monitoring asks of the API: the route `metrics.get`; and what it is told of requests. */
import { METRICS_TYPE, ROUTE_SCOPES, ROUTE_SPECS } from "@volant/contract";
import type { FastifyInstance } from "fastify";
import type { MetricsUseCases } from "../engine/use-cases.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import type { ReadInput } from "./handler.ts";

/** The route `metrics.get`. */
export function addMetricsRoute(app: FastifyInstance, metrics: MetricsUseCases, read: ReadInput): void {
  app.route({
    method: "GET",
    url: ROUTE_SPECS["metrics.get"].path,
    config: { scope: ROUTE_SCOPES["metrics.get"] },
    handler: async (request, reply) => {
      read("metrics.get", request);
      return reply.type(METRICS_TYPE).send(await metrics.metrics());
    },
  });
}

/** Tells of each request once it has been answered, and of each stream once it has ended. */
export function tellRequests(app: FastifyInstance, telemetry: Pick<Telemetry, "request">): void {
  app.addHook("onResponse", async (request, reply) => {
    const endedMs = performance.now();
    const parent = request.headers["traceparent"];
    telemetry.request({
      requestId: request.id,
      method: request.method,
      route: request.routeOptions.url,
      status: reply.raw.statusCode,
      startedMs: endedMs - reply.elapsedTime,
      endedMs,
      traceParent: typeof parent === "string" ? parent : undefined,
    });
  });
}
