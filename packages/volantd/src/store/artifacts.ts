import type { DatabaseSync } from "node:sqlite";
import type { ArtifactRecord, ArtifactStore, NewArtifact } from "./artifact-store.ts";
import { integer, text, type Row } from "./rows.ts";
import { Statements } from "./statements.ts";

function artifactRecord(row: Row): ArtifactRecord {
  return {
    plugin: text(row, "plugin"),
    version: text(row, "version"),
    name: text(row, "name"),
    kind: text(row, "kind"),
    sourceUrl: text(row, "source_url"),
    checksum: text(row, "checksum"),
    format: text(row, "format"),
    sizeBytes: integer(row, "size_bytes"),
    createdAt: text(row, "created_at"),
    updatedAt: text(row, "updated_at"),
  };
}

/** Plugins' files in SQLite; rows of a plugin go with it. */
export class Artifacts implements ArtifactStore {
  readonly #statements: Statements;
  readonly #now: () => Date;

  constructor(database: DatabaseSync, now: () => Date) {
    this.#statements = new Statements(database);
    this.#now = now;
  }

  put({
    plugin,
    version,
    name,
    kind,
    sourceUrl,
    checksum,
    format,
    sizeBytes,
  }: NewArtifact): ArtifactRecord | undefined {
    const stamp = this.#now().toISOString();
    const row = this.#statements
      .get(
        `INSERT INTO plugin_artifacts (plugin, version, name, kind, source_url, checksum, format, size_bytes, created_at, updated_at)
         SELECT plugins.name, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM plugins WHERE plugins.name = ?
         ON CONFLICT (plugin, version, name) DO UPDATE SET kind = excluded.kind, source_url = excluded.source_url,
           checksum = excluded.checksum, format = excluded.format, size_bytes = excluded.size_bytes, updated_at = excluded.updated_at
         RETURNING *`,
      )
      .get(version, name, kind, sourceUrl, checksum, format, sizeBytes, stamp, stamp, plugin);
    return row === undefined ? undefined : artifactRecord(row);
  }

  list(plugin: string, version?: string): ArtifactRecord[] {
    return this.#statements
      .get("SELECT * FROM plugin_artifacts WHERE plugin = ? AND version = coalesce(?, version) ORDER BY version, name")
      .all(plugin, version ?? null)
      .map(artifactRecord);
  }

  remove(
    plugin: string,
    { version, name }: { readonly version?: string | undefined; readonly name?: string | undefined },
  ): number {
    const { changes } = this.#statements
      .get(
        "DELETE FROM plugin_artifacts WHERE plugin = ? AND version = coalesce(?, version) AND name = coalesce(?, name)",
      )
      .run(plugin, version ?? null, name ?? null);
    return Number(changes);
  }
}
