/** Plugins, and the files that they and VMs boot from. */
import type { Readable } from "node:stream";
import { VolantError, type Manifest, type Plugin } from "@volant/contract";
import type { ImageStore } from "../image/image.ts";
import { checkManifest, type ManagedNetwork } from "../model/manifest.ts";
import type { PluginRecord, Store } from "../store/store.ts";
import type { EngineLog } from "./engine.ts";
import { KeyedRequests, type Keyed } from "./keyed-requests.ts";
import type { ImageUseCases, PluginUseCases } from "./use-cases.ts";

/** A file that was handed over is kept this long for the manifest that names it. */
const UNCLAIMED_MS = 10 * 60_000;

export interface PluginServiceOptions {
  readonly store: Store;
  readonly images: ImageStore;
  readonly managed: ManagedNetwork;
  readonly log: EngineLog;
  /** What was handed over is young or old by this clock, which nobody sets. */
  readonly monotonicMs: () => number;
}

function pluginView({ name, enabled, manifest, createdAt, updatedAt }: PluginRecord): Plugin {
  const { version, runtime = name } = manifest;
  return { name, version, enabled, runtime, manifest, created_at: createdAt, updated_at: updatedAt };
}

export class PluginService implements PluginUseCases, ImageUseCases {
  readonly #options: PluginServiceOptions;
  /** When files came that no plugin has claimed yet, by checksum. */
  readonly #unclaimed = new Map<string, number>();

  readonly #requests: KeyedRequests;

  constructor(options: PluginServiceOptions) {
    this.#options = options;
    this.#requests = new KeyedRequests(options.store);
  }

  install(manifest: Manifest, key?: string): Promise<Plugin> {
    return this.#requests.run("plugins.install", key, manifest, (keyed) => this.#install(manifest, keyed));
  }

  async #install(manifest: Manifest, keyed: Keyed | undefined): Promise<Plugin> {
    const { store, images, managed } = this.#options;
    const initramfs = checkManifest(manifest, managed);
    if (store.findPlugin(manifest.name) !== undefined) {
      throw new VolantError("exists", `a plugin named "${manifest.name}" is installed already`, {
        hint: `volar plugins remove ${manifest.name}`,
      });
    }
    const checksum = await images.adopt(initramfs);
    await this.#tryBootImage(checksum);
    const stored = { ...manifest, initramfs: { ...initramfs, checksum } };
    const answer = (made: PluginRecord) => JSON.stringify(pluginView(made));
    const record = store.createPlugin(stored, manifest.enabled !== false, keyed && { ...keyed, answer });
    this.#unclaimed.delete(checksum);
    return pluginView(record);
  }

  /** Says now what is wrong with a file, and makes what the first VM would wait for. A host without a kernel can have plugins all the same. */
  async #tryBootImage(checksum: string): Promise<void> {
    try {
      await this.#options.images.bootImage(checksum);
    } catch (error) {
      if (!(error instanceof VolantError) || error.code !== "not_ready") throw error;
    }
  }

  list(): readonly Plugin[] {
    return this.#options.store.listPlugins().map(pluginView);
  }

  get(name: string): Plugin {
    return pluginView(this.#find(name));
  }

  manifest(name: string): Manifest {
    const plugin = this.#find(name);
    if (plugin.enabled) return plugin.manifest;
    throw new VolantError("disabled", `plugin "${name}" is disabled`, { hint: `volar plugins enable ${name}` });
  }

  setEnabled(name: string, enabled: boolean): Plugin {
    const plugin = this.#options.store.setPluginEnabled(name, enabled);
    if (plugin === undefined) throw notInstalled(name);
    return pluginView(plugin);
  }

  async remove(name: string): Promise<void> {
    if (!this.#options.store.deletePlugin(name)) throw notInstalled(name);
    await this.prune();
  }

  /** Removes files that nothing boots from. What was handed over a moment ago may still be claimed, and stays. */
  async prune(): Promise<void> {
    // A file must not be gone before what no longer needs it is.
    await this.#options.store.settled();
    const oldest = this.#options.monotonicMs() - UNCLAIMED_MS;
    for (const [checksum, since] of this.#unclaimed) if (since < oldest) this.#unclaimed.delete(checksum);
    const used = this.#options.store.filesInUse().flatMap(({ checksum }) => checksum ?? []);
    try {
      await this.#options.images.prune(new Set([...used, ...this.#unclaimed.keys()]));
    } catch (error) {
      this.#options.log.warn({ error }, "files that are not needed any more can't be removed");
    }
  }

  has(checksum: string): Promise<boolean> {
    // Whoever asks is about to name it in a manifest.
    this.#unclaimed.set(checksum, this.#options.monotonicMs());
    return this.#options.images.has(checksum);
  }

  async put(checksum: string, content: Readable): Promise<void> {
    this.#unclaimed.set(checksum, this.#options.monotonicMs());
    await this.#options.images.put(checksum, content);
  }

  #find(name: string): PluginRecord {
    const plugin = this.#options.store.findPlugin(name);
    if (plugin === undefined) throw notInstalled(name);
    return plugin;
  }
}

function notInstalled(name: string): VolantError {
  return new VolantError("not_found", `plugin "${name}" is not installed`, { hint: "volar plugins list" });
}
