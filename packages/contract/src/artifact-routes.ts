/** Routes of plugins' artifacts. A part of the route table. */
import { Type } from "typebox";
import { ArtifactDeleteQuery, ArtifactQuery, CreateArtifactRequest, PluginArtifact } from "./artifact.ts";
import { ENDPOINTS } from "./endpoints.ts";
import { Name, PluginName } from "./names.ts";

const closed = { additionalProperties: false } as const;
const pluginParams = Type.Object({ plugin: PluginName }, closed);

export const ARTIFACT_ROUTES = {
  "plugins.artifacts.list": {
    ...ENDPOINTS["plugins.artifacts.list"],
    tag: "plugins",
    summary: "Files of a plugin, by version and name; those of its manifest first",
    params: pluginParams,
    query: ArtifactQuery,
    status: 200,
    response: Type.Array(PluginArtifact),
    errors: ["not_found"],
  },
  "plugins.artifacts.create": {
    ...ENDPOINTS["plugins.artifacts.create"],
    tag: "plugins",
    summary:
      "Add a file to a plugin, in place of one with its version and name: handed over by checksum, or in volantd's own folder",
    params: pluginParams,
    body: CreateArtifactRequest,
    status: 201,
    response: PluginArtifact,
    errors: ["not_found", "exists", "checksum_mismatch", "not_supported"],
  },
  "plugins.artifacts.delete": {
    ...ENDPOINTS["plugins.artifacts.delete"],
    tag: "plugins",
    summary:
      "Remove files of a plugin: those with this version and name, where they are given. Those of its manifest stay",
    params: pluginParams,
    query: ArtifactDeleteQuery,
    status: 204,
    errors: ["not_found", "in_use"],
  },
  "plugins.artifacts.get": {
    ...ENDPOINTS["plugins.artifacts.get"],
    tag: "plugins",
    summary: "One file of a plugin: of a version, or the one that was written last",
    params: Type.Object({ plugin: PluginName, artifact: Name }, closed),
    query: ArtifactQuery,
    status: 200,
    response: PluginArtifact,
    errors: ["not_found"],
  },
} as const;
