/** Files of plugins, kept by their checksums beside what VMs boot from. */
import { Type, type Static } from "typebox";
import { Checksum } from "./manifest.ts";
import { Name, PluginName } from "./names.ts";
import { Timestamp } from "./vm.ts";

const closed = { additionalProperties: false } as const;

const Version = Type.String({ minLength: 1, maxLength: 128, description: "Of the plugin; default: the one installed" });
const Kind = Type.String({ minLength: 1, maxLength: 63, description: "What it is, such as rootfs, disk or kernel" });
const Format = Type.String({ maxLength: 63, description: "Such as raw, qcow2 or cpio" });
const SourceUrl = Type.String({
  maxLength: 4096,
  description: "Where it came from; volantd fetches nothing from there",
});
const Size = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export const CreateArtifactRequest = Type.Object(
  {
    version: Type.Optional(Version),
    artifact_name: Name,
    kind: Kind,
    source_url: Type.Optional(SourceUrl),
    checksum: Type.Optional(Checksum),
    format: Type.Optional(Format),
    local_path: Type.Optional(
      Type.String({
        maxLength: 4096,
        description: "A file in volantd's own folder, where it was not handed over by checksum",
      }),
    ),
    size_bytes: Type.Optional(Size),
  },
  closed,
);
export type CreateArtifactRequest = Static<typeof CreateArtifactRequest>;

export const PluginArtifact = Type.Object(
  {
    plugin: PluginName,
    version: Version,
    artifact_name: Name,
    kind: Kind,
    source_url: SourceUrl,
    checksum: Checksum,
    format: Format,
    local_path: Type.String({ description: "Where volantd keeps it" }),
    size_bytes: Size,
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  closed,
);
export type PluginArtifact = Static<typeof PluginArtifact>;

export const ArtifactQuery = Type.Object({ version: Type.Optional(Version) }, closed);
export type ArtifactQuery = Static<typeof ArtifactQuery>;

export const ArtifactDeleteQuery = Type.Object(
  { version: Type.Optional(Version), artifact_name: Type.Optional(Name) },
  closed,
);
export type ArtifactDeleteQuery = Static<typeof ArtifactDeleteQuery>;
