import type { ArtifactDeleteQuery, CreateArtifactRequest, PluginArtifact } from "@volant/contract";
import type { CallOptions } from "./call-options.ts";
import type { Transport } from "./transport.ts";

export interface ArtifactOptions extends CallOptions {
  /** Of the plugin. */
  readonly version?: string | undefined;
}

function versionQuery(version: string | undefined): { readonly version?: string } {
  return version === undefined ? {} : { version };
}

/** Files of plugins. */
export class ArtifactClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Those of the manifest first. @throws VolantError `not_found` */
  async list(plugin: string, { version, ...options }: ArtifactOptions = {}): Promise<readonly PluginArtifact[]> {
    const input = { params: { plugin }, query: versionQuery(version), ...options };
    return (await this.#transport.call("plugins.artifacts.list", input)).body;
  }

  /** Of all versions the one that was written last, unless one is named. @throws VolantError `not_found` */
  async get(plugin: string, artifact: string, { version, ...options }: ArtifactOptions = {}): Promise<PluginArtifact> {
    const input = { params: { plugin, artifact }, query: versionQuery(version), ...options };
    return (await this.#transport.call("plugins.artifacts.get", input)).body;
  }

  /** Its file must have been handed over by `images.put`, or lie in volantd's own folder. @throws VolantError `not_found`, `exists`, `invalid`, `checksum_mismatch` */
  async create(plugin: string, request: CreateArtifactRequest, options: CallOptions = {}): Promise<PluginArtifact> {
    const input = { params: { plugin }, body: request, ...options };
    return (await this.#transport.call("plugins.artifacts.create", input)).body;
  }

  /** Removes those with this version and name, where they are given. @throws VolantError `not_found`, `in_use` */
  async delete(plugin: string, which: ArtifactDeleteQuery = {}, options: CallOptions = {}): Promise<void> {
    await this.#transport.call("plugins.artifacts.delete", { params: { plugin }, query: which, ...options });
  }
}
