/** What workloads say of themselves, and their plugins' actions. */
import { ANSWERED_BY_HEADER, ROUTE_SCOPES, ROUTE_SPECS } from "@volant/contract";
import type { FastifyInstance, FastifyReply } from "fastify";
import type { ActionAnswer, WorkloadUseCases } from "../engine/use-cases.ts";
import { goneSignal, type ReadInput } from "./handler.ts";
import { SANDBOX } from "./proxy.ts";

/** Passed on as it came. It may be a page, and that must not speak for volantd's origin. */
function passOn(reply: FastifyReply, { vm, status, contentType, body }: ActionAnswer): FastifyReply {
  return reply
    .code(status)
    .header(ANSWERED_BY_HEADER, vm)
    .header("content-security-policy", SANDBOX)
    .header("content-type", contentType ?? "application/octet-stream")
    .send(body);
}

/** The routes `vms.openapi`, `vms.action` and `plugins.action`. */
export function addWorkloadRoutes(app: FastifyInstance, workloads: WorkloadUseCases, read: ReadInput): void {
  app.route({
    method: "GET",
    url: ROUTE_SPECS["vms.openapi"].path,
    config: { scope: ROUTE_SCOPES["vms.openapi"] },
    handler: async (request, reply) => {
      const { params } = read("vms.openapi", request);
      const text = await workloads.openApi(params.name, goneSignal(reply));
      return reply.header("content-type", "application/json; charset=utf-8").send(text);
    },
  });
  app.route({
    method: "POST",
    url: ROUTE_SPECS["vms.action"].path,
    config: { scope: ROUTE_SCOPES["vms.action"] },
    handler: async (request, reply) => {
      const { params, body } = read("vms.action", request);
      const { name, plugin, action } = params;
      return passOn(reply, await workloads.vmAction(name, plugin, action, body, goneSignal(reply)));
    },
  });
  app.route({
    method: "POST",
    url: ROUTE_SPECS["plugins.action"].path,
    config: { scope: ROUTE_SCOPES["plugins.action"] },
    handler: async (request, reply) => {
      const { params, query, body } = read("plugins.action", request);
      const options = { vm: query.vm, signal: goneSignal(reply) };
      return passOn(reply, await workloads.pluginAction(params.plugin, params.action, body, options));
    },
  });
}
