import type { VfioUseCases } from "../engine/use-cases.ts";
import type { Handlers } from "./handler.ts";

type VfioRoutes = "vfio.bind" | "vfio.groups" | "vfio.info" | "vfio.paths" | "vfio.unbind" | "vfio.validate";

/** PCI devices of the host. */
export function vfioHandlers(vfio: VfioUseCases): Handlers<VfioRoutes> {
  return {
    "vfio.info": async ({ body }) => ({ body: await vfio.info(body.pci_address) }),
    "vfio.validate": async ({ body }) => ({ body: await vfio.validate(body.pci_addresses, body.allowlist) }),
    "vfio.groups": async ({ body }) => ({ body: await vfio.groups(body.pci_addresses) }),
    "vfio.bind": async ({ body }) => ({ body: await vfio.bind(body.pci_addresses) }),
    "vfio.unbind": async ({ body }) => ({ body: await vfio.unbind(body.pci_addresses) }),
    "vfio.paths": async ({ body }) => ({ body: await vfio.paths(body.pci_addresses) }),
  };
}
