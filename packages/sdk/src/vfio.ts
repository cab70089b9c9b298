import type { VfioDevice, VfioGroupList, VfioVerdict } from "@volant/contract";
import type { CallOptions } from "./call-options.ts";
import type { Transport } from "./transport.ts";

export interface ValidateOptions extends CallOptions {
  /** Addresses or `vendor:device` ids that alone may be handed on, with `*` for any characters. Default: any. */
  readonly allowlist?: readonly string[] | undefined;
}

/** PCI devices of the host, by addresses such as `0000:01:00.0`. */
export class VfioClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** @throws VolantError `not_found` */
  async info(address: string, options: CallOptions = {}): Promise<VfioDevice> {
    return (await this.#transport.call("vfio.info", { body: { pci_address: address }, ...options })).body;
  }

  /** Whether they could be handed to a guest, and why not. */
  async validate(
    addresses: readonly string[],
    { allowlist = [], ...options }: ValidateOptions = {},
  ): Promise<VfioVerdict> {
    const body = { pci_addresses: [...addresses], allowlist: [...allowlist] };
    return (await this.#transport.call("vfio.validate", { body, ...options })).body;
  }

  /** Their IOMMU groups, with everything in them. @throws VolantError `not_found` */
  async groups(addresses: readonly string[], options: CallOptions = {}): Promise<VfioGroupList["groups"]> {
    const body = { pci_addresses: [...addresses] };
    return (await this.#transport.call("vfio.groups", { body, ...options })).body.groups;
  }

  /** Takes them from the host's drivers: all of them, or none. @throws VolantError `not_found`, `in_use`, `wrong_state` */
  async bind(addresses: readonly string[], options: CallOptions = {}): Promise<readonly VfioDevice[]> {
    const body = { pci_addresses: [...addresses] };
    return (await this.#transport.call("vfio.bind", { body, ...options })).body.devices;
  }

  /** Gives them back to the host's drivers. @throws VolantError `not_found` */
  async unbind(addresses: readonly string[], options: CallOptions = {}): Promise<readonly VfioDevice[]> {
    const body = { pci_addresses: [...addresses] };
    return (await this.#transport.call("vfio.unbind", { body, ...options })).body.devices;
  }

  /** The nodes by which a hypervisor gets them. @throws VolantError `not_found`, `wrong_state` for one that is not bound */
  async paths(addresses: readonly string[], options: CallOptions = {}): Promise<readonly string[]> {
    const body = { pci_addresses: [...addresses] };
    return (await this.#transport.call("vfio.paths", { body, ...options })).body.paths;
  }
}
