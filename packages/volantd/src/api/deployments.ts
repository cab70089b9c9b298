import type { DeploymentUseCases } from "../engine/use-cases.ts";
import { DONE, type Handlers } from "./handler.ts";
import { begun, ended } from "./waiting.ts";

type DeploymentRoutes =
  | "deployments.create"
  | "deployments.delete"
  | "deployments.get"
  | "deployments.history"
  | "deployments.list"
  | "deployments.patch"
  | "deployments.rollback";

/** Deployments: list, create, show, change, roll back, history, delete. */
export function deploymentHandlers(deployments: DeploymentUseCases): Handlers<DeploymentRoutes> {
  return {
    "deployments.list": () => ({ body: [...deployments.list()] }),
    "deployments.create": (input) => begun(deployments, input, () => deployments.create(input.body, input.key)),
    "deployments.get": ({ params }) => ({ body: deployments.get(params.name) }),
    "deployments.patch": (input) => begun(deployments, input, () => deployments.patch(input.params.name, input.body)),
    "deployments.rollback": (input) =>
      begun(deployments, input, () => deployments.rollback(input.params.name, input.body.version)),
    "deployments.history": ({ params, query }) => ({ body: [...deployments.history(params.name, query.limit)] }),
    "deployments.delete": (input) =>
      ended(deployments, input.params.name, input, async (patience) => {
        await deployments.delete(input.params.name, patience);
        return DONE;
      }),
  };
}
