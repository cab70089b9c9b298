/** Files of plugins: what their manifests name, and what was added to them. All are kept by checksum, for as long as something names them. */
import {
  VolantError,
  type ArtifactDeleteQuery,
  type CreateArtifactRequest,
  type PluginArtifact,
} from "@volant/contract";
import type { ImageStore } from "../image/image.ts";
import type { ArtifactRecord } from "../store/artifact-store.ts";
import type { PluginRecord, Store } from "../store/store.ts";
import type { ArtifactUseCases } from "./use-cases.ts";

/** Its name and kind, where the manifest names it. */
const INITRAMFS = "initramfs";

export interface ArtifactServiceOptions {
  readonly store: Pick<Store, "artifacts" | "findPlugin">;
  readonly images: Pick<ImageStore, "adopt" | "pathOf" | "sizeOf">;
  /** Removes files that nothing names any more. */
  readonly prune: () => Promise<void>;
}

export class ArtifactService implements ArtifactUseCases {
  readonly #options: ArtifactServiceOptions;

  constructor(options: ArtifactServiceOptions) {
    this.#options = options;
  }

  async list(plugin: string, version?: string): Promise<readonly PluginArtifact[]> {
    const found = this.#find(plugin);
    const own = await this.#own(found);
    const added = this.#options.store.artifacts.list(plugin, version).map((record) => this.#view(record));
    return [...(own === undefined || (version ?? own.version) !== own.version ? [] : [own]), ...added];
  }

  async get(plugin: string, name: string, version?: string): Promise<PluginArtifact> {
    const found = (await this.list(plugin, version)).filter((artifact) => artifact.artifact_name === name);
    const latest = found.toSorted((a, b) => (a.updated_at < b.updated_at ? -1 : 1)).at(-1);
    if (latest === undefined) throw missing(plugin, name, version);
    return latest;
  }

  async create(plugin: string, request: CreateArtifactRequest): Promise<PluginArtifact> {
    const { store, images } = this.#options;
    const { manifest } = this.#find(plugin);
    const { version = manifest.version, artifact_name: name, kind, format = "" } = request;
    if (name === INITRAMFS && version === manifest.version) {
      throw new VolantError("exists", `the initramfs of plugin "${plugin}" is its manifest's to name`, {
        hint: "volar plugins install --replace puts another one in its place",
      });
    }
    const { local_path: path = "", source_url: sourceUrl = path, checksum } = request;
    const url = path === "" ? sourceUrl : path;
    const kept = url === "" ? checksum : await images.adopt(checksum === undefined ? { url } : { url, checksum });
    if (kept === undefined) {
      throw new VolantError(
        "invalid",
        `artifact "${name}" names no file: it needs a checksum, a source_url or a local_path`,
      );
    }
    const sizeBytes = await images.sizeOf(kept);
    if (request.size_bytes !== undefined && request.size_bytes !== sizeBytes) {
      throw new VolantError("invalid", `artifact "${name}" has ${sizeBytes} bytes, and not ${request.size_bytes}`);
    }
    const made = store.artifacts.put({ plugin, version, name, kind, sourceUrl, checksum: kept, format, sizeBytes });
    if (made === undefined) throw notInstalled(plugin);
    return this.#view(made);
  }

  async delete(plugin: string, { version, artifact_name: name }: ArtifactDeleteQuery): Promise<void> {
    const { store, prune } = this.#options;
    const { manifest } = this.#find(plugin);
    const removed = store.artifacts.remove(plugin, { version, name });
    if (removed === 0 && name !== undefined) {
      if (name !== INITRAMFS || (version ?? manifest.version) !== manifest.version)
        throw missing(plugin, name, version);
      throw new VolantError("in_use", `the initramfs of plugin "${plugin}" is named by its manifest`, {
        hint: `volar plugins remove ${plugin}`,
      });
    }
    if (removed > 0) await prune();
  }

  /** What the manifest names. Its size is that of the file as it is now; 0 where that was lost. */
  async #own({ name, manifest, createdAt, updatedAt }: PluginRecord): Promise<PluginArtifact | undefined> {
    const { url = "", checksum } = manifest.initramfs ?? {};
    if (checksum === undefined) return undefined;
    const sizeBytes = await this.#options.images.sizeOf(checksum).catch((error: unknown) => {
      if (error instanceof VolantError) return 0;
      throw error;
    });
    const facts = { kind: INITRAMFS, sourceUrl: url, checksum, format: "cpio", sizeBytes, createdAt, updatedAt };
    return this.#view({ plugin: name, version: manifest.version, name: INITRAMFS, ...facts });
  }

  #view(record: ArtifactRecord): PluginArtifact {
    return {
      plugin: record.plugin,
      version: record.version,
      artifact_name: record.name,
      kind: record.kind,
      source_url: record.sourceUrl,
      checksum: record.checksum,
      format: record.format,
      local_path: this.#options.images.pathOf(record.checksum),
      size_bytes: record.sizeBytes,
      created_at: record.createdAt,
      updated_at: record.updatedAt,
    };
  }

  #find(plugin: string): PluginRecord {
    const found = this.#options.store.findPlugin(plugin);
    if (found === undefined) throw notInstalled(plugin);
    return found;
  }
}

function notInstalled(plugin: string): VolantError {
  return new VolantError("not_found", `plugin "${plugin}" is not installed`, { hint: "volar plugins list" });
}

function missing(plugin: string, name: string, version: string | undefined): VolantError {
  const which = version === undefined ? "" : ` of version "${version}"`;
  return new VolantError("not_found", `plugin "${plugin}" has no artifact "${name}"${which}`);
}
