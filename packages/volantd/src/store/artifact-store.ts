/** The port to what must be remembered of plugins' files. Every method is one transaction. */

export interface ArtifactKey {
  readonly plugin: string;
  readonly version: string;
  readonly name: string;
}

export interface ArtifactRecord extends ArtifactKey {
  readonly kind: string;
  readonly sourceUrl: string;
  readonly checksum: string;
  readonly format: string;
  readonly sizeBytes: number;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly updatedAt: string;
}

export type NewArtifact = Omit<ArtifactRecord, "createdAt" | "updatedAt">;

export interface ArtifactStore {
  /** Takes the place of one with its key, which keeps its time of creation. Undefined when the plugin is gone. */
  put(artifact: NewArtifact): ArtifactRecord | undefined;
  /** By version and name. */
  list(plugin: string, version?: string): readonly ArtifactRecord[];
  /** @returns how many there were */
  remove(plugin: string, which: { readonly version?: string | undefined; readonly name?: string | undefined }): number;
}
