import { TOTAL_COUNT_HEADER, type Vm } from "@volant/contract";
import type { VmUseCases } from "../engine/use-cases.ts";
import { DONE, type Handlers } from "./handler.ts";
import { ListBodies } from "./list-body.ts";
import { begun, ended, type Waited } from "./waiting.ts";

type VmRoutes = "vms.create" | "vms.delete" | "vms.get" | "vms.list" | "vms.restart" | "vms.start" | "vms.stop";

/** VMs: list, create, show, delete, start, stop, restart. */
export function vmHandlers(vms: VmUseCases): Handlers<VmRoutes> {
  const bodies = new ListBodies();
  const starts: Waited<Vm> = {
    get: (name) => vms.get(name),
    wait: (name, patience) => vms.wait(name, "running", patience),
  };
  return {
    "vms.list": async ({ query }) => {
      await vms.refresh();
      const { vms: found, total } = vms.list(query);
      const json = bodies.json(JSON.stringify(query), found);
      return { body: [], json, headers: { [TOTAL_COUNT_HEADER]: String(total) } };
    },
    "vms.create": (input) => begun(starts, input, () => vms.create(input.body, input.key)),
    "vms.get": async ({ params }) => {
      await vms.refresh();
      return { body: vms.get(params.name) };
    },
    "vms.delete": (input) =>
      ended(vms, input.params.name, input, async (patience) => {
        await vms.delete(input.params.name, patience);
        return DONE;
      }),
    "vms.start": (input) => begun(starts, input, () => vms.start(input.params.name)),
    "vms.stop": (input) =>
      ended(vms, input.params.name, input, async (patience) => ({
        body: await vms.stop(input.params.name, patience),
      })),
    "vms.restart": (input) => begun(starts, input, () => vms.restart(input.params.name)),
  };
}
