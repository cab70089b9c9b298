import type { PluginUseCases } from "../engine/use-cases.ts";
import { DONE, type Handlers } from "./handler.ts";

type PluginRoutes =
  | "plugins.get"
  | "plugins.install"
  | "plugins.list"
  | "plugins.manifest"
  | "plugins.remove"
  | "plugins.setEnabled";

/** Plugins: list, install, show, enable, disable, remove. */
export function pluginHandlers(plugins: PluginUseCases): Handlers<PluginRoutes> {
  return {
    "plugins.list": () => ({ body: { plugins: plugins.list().map((plugin) => plugin.name) } }),
    "plugins.install": async ({ body, key }) => ({ body: await plugins.install(body, key) }),
    "plugins.get": ({ params }) => ({ body: plugins.get(params.plugin) }),
    "plugins.manifest": ({ params }) => ({ body: plugins.manifest(params.plugin) }),
    "plugins.setEnabled": ({ params, body }) => ({ body: plugins.setEnabled(params.plugin, body.enabled) }),
    "plugins.remove": async ({ params }) => {
      await plugins.remove(params.plugin);
      return DONE;
    },
  };
}
