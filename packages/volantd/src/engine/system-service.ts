import { VOLANT_VERSION, type SystemInfo, type SystemSummary } from "@volant/contract";
import { formatAddress, formatSubnet } from "../model/address.ts";
import type { ManagedNetwork } from "../model/manifest.ts";
import type { RuntimeInfo } from "../runtime/runtime.ts";
import type { Store } from "../store/store.ts";
import type { SystemUseCases } from "./use-cases.ts";

export interface SystemServiceOptions {
  readonly store: Store;
  readonly hypervisor: RuntimeInfo;
  readonly managed: ManagedNetwork;
  /** Whether taps and bridge are Volant's to make. */
  readonly manages: boolean;
  /** `host:port` that is listened on. */
  readonly listen: string;
  /** Where clients reach the API; empty where nothing was set. */
  readonly advertise: string;
}

export class SystemService implements SystemUseCases {
  readonly #options: SystemServiceOptions;

  constructor(options: SystemServiceOptions) {
    this.#options = options;
  }

  info(): SystemInfo {
    const { store, hypervisor, managed, manages, listen, advertise } = this.#options;
    const { name, version, accelerator, data } = hypervisor;
    return {
      status: "ok",
      version: VOLANT_VERSION,
      api_listen_addr: listen,
      api_advertise_addr: advertise,
      host_ip: formatAddress(managed.pool.gateway),
      bridge: managed.bridge,
      subnet: formatSubnet(managed.pool.subnet),
      installation: store.installation,
      network: manages ? "bridge" : "noop",
      hypervisor: { name, version, accelerator },
      transport: {
        data: data.transport,
        wanted: data.wanted,
        ...(data.transport === "vsock" ? {} : { reason: data.reason }),
      },
    };
  }

  summary(): SystemSummary {
    const { store } = this.#options;
    const vms = store.countVms();
    const plugins = store.listPlugins();
    return {
      total_vms: vms.total,
      by_status: { ...vms.byStatus },
      by_runtime: { ...vms.byRuntime },
      total_plugins: plugins.length,
      enabled_plugins: plugins.filter(({ enabled }) => enabled).length,
      plugins: plugins.map(({ name, enabled, manifest }) => ({ name, version: manifest.version, enabled })),
    };
  }
}
