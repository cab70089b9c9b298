import type { ArtifactUseCases } from "../engine/use-cases.ts";
import { DONE, type Handlers } from "./handler.ts";

type ArtifactRoutes =
  | "plugins.artifacts.create"
  | "plugins.artifacts.delete"
  | "plugins.artifacts.get"
  | "plugins.artifacts.list";

/** Files of plugins: list, add, show, remove. */
export function artifactHandlers(artifacts: ArtifactUseCases): Handlers<ArtifactRoutes> {
  return {
    "plugins.artifacts.list": async ({ params, query }) => ({
      body: [...(await artifacts.list(params.plugin, query.version))],
    }),
    "plugins.artifacts.create": async ({ params, body }) => ({ body: await artifacts.create(params.plugin, body) }),
    "plugins.artifacts.get": async ({ params, query }) => ({
      body: await artifacts.get(params.plugin, params.artifact, query.version),
    }),
    "plugins.artifacts.delete": async ({ params, query }) => {
      await artifacts.delete(params.plugin, query);
      return DONE;
    },
  };
}
