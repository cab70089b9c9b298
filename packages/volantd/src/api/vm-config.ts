import type { ConfigUseCases, VmUseCases } from "../engine/use-cases.ts";
import type { Handlers } from "./handler.ts";
import { patienceOf } from "./waiting.ts";

type ConfigRoutes = "vms.config.get" | "vms.config.history" | "vms.config.patch";

/** A VM's configuration: show, change, history. */
export function configHandlers(configs: ConfigUseCases, vms: VmUseCases): Handlers<ConfigRoutes> {
  return {
    "vms.config.get": ({ params }) => ({ body: configs.get(params.name) }),
    "vms.config.patch": async (input) => {
      const { name } = input.params;
      const patience = patienceOf(input);
      const body = await configs.patch(name, input.body);
      if (patience === undefined) return { body };
      const isReached = await vms.wait(name, "settled", patience);
      return { body: configs.get(name), isAccepted: !isReached };
    },
    "vms.config.history": ({ params, query }) => ({ body: [...configs.history(params.name, query.limit)] }),
  };
}
