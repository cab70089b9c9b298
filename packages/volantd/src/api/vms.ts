import { TOTAL_COUNT_HEADER } from "@volant/contract";
import type { VmUseCases } from "../engine/use-cases.ts";
import { DONE, type Handlers } from "./handler.ts";

type VmRoutes = "vms.create" | "vms.delete" | "vms.get" | "vms.list" | "vms.restart" | "vms.start" | "vms.stop";

/** VMs: list, create, show, delete, start, stop, restart. */
export function vmHandlers(vms: VmUseCases): Handlers<VmRoutes> {
  return {
    "vms.list": ({ query }) => {
      const { vms: found, total } = vms.list(query);
      return { body: [...found], headers: { [TOTAL_COUNT_HEADER]: String(total) } };
    },
    "vms.create": async ({ body }) => ({ body: await vms.create(body) }),
    "vms.get": ({ params }) => ({ body: vms.get(params.name) }),
    "vms.delete": async ({ params }) => {
      await vms.delete(params.name);
      return DONE;
    },
    "vms.start": async ({ params }) => ({ body: await vms.start(params.name) }),
    "vms.stop": async ({ params }) => ({ body: await vms.stop(params.name) }),
    "vms.restart": async ({ params }) => ({ body: await vms.restart(params.name) }),
  };
}
