/** Artifacts in memory: the real use cases over a list and the stand-in's files. */
import { VolantError, type Plugin } from "@volant/contract";
import { ArtifactService } from "../../engine/artifact-service.ts";
import type { ArtifactUseCases } from "../../engine/use-cases.ts";
import type { ArtifactRecord, ArtifactStore } from "../../store/artifact-store.ts";

function memoryStore(stamp: string): ArtifactStore {
  let rows: ArtifactRecord[] = [];
  const list = (plugin: string, version?: string, name?: string) =>
    rows.filter(
      (row) =>
        row.plugin === plugin &&
        (version === undefined || row.version === version) &&
        (name === undefined || row.name === name),
    );
  return {
    put(artifact) {
      const made = { ...artifact, createdAt: stamp, updatedAt: stamp };
      const old = list(artifact.plugin, artifact.version, artifact.name);
      rows = [...rows.filter((row) => !old.includes(row)), made];
      return made;
    },
    list: (plugin, version) => list(plugin, version),
    remove(plugin, { version, name }) {
      const gone = list(plugin, version, name);
      rows = rows.filter((row) => !gone.includes(row));
      return gone.length;
    },
  };
}

export function createStandInArtifacts(
  stamp: string,
  plugins: ReadonlyMap<string, Plugin>,
  images: ReadonlyMap<string, Buffer>,
): ArtifactUseCases {
  return new ArtifactService({
    store: {
      artifacts: memoryStore(stamp),
      findPlugin(name) {
        const plugin = plugins.get(name);
        return plugin && { ...plugin, createdAt: plugin.created_at, updatedAt: plugin.updated_at };
      },
    },
    images: {
      async adopt({ url, checksum }) {
        if (checksum !== undefined && images.has(checksum)) return checksum;
        throw new VolantError("invalid", `the file ${url} does not exist`);
      },
      pathOf: (checksum) => `/images/${checksum}`,
      async sizeOf(checksum) {
        const found = images.get(checksum);
        if (found === undefined) throw new VolantError("not_found", `no file with checksum ${checksum} is here`);
        return found.length;
      },
    },
    prune: async () => {},
  });
}
