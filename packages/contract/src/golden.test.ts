/**
 * One golden file per resource: an example with every field that there is. What others rely on can't be renamed, retyped or taken away without one of these
 * failing; a field that is added has to be added here.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import type { TSchema } from "typebox";
import { CreateArtifactRequest, PluginArtifact } from "./artifact.ts";
import { checkSchema } from "./check.ts";
import { CreateDeploymentRequest, Deployment, DeploymentVersion } from "./deployment.ts";
import { NumberedVmEvent } from "./event.ts";
import { VmLogLine } from "./logs.ts";
import { Manifest } from "./manifest.ts";
import { Plugin } from "./plugin.ts";
import { ErrorBody, SystemInfo, SystemSummary } from "./system.ts";
import { VfioDevice, VfioVerdict } from "./vfio.ts";
import { CreateVmRequest, Vm } from "./vm.ts";
import { VmConfigState, VmConfigVersion } from "./vm-config.ts";

const directory = join(import.meta.dirname, "../golden");

const RESOURCES: Readonly<Record<string, TSchema>> = {
  "create-artifact-request": CreateArtifactRequest,
  "create-deployment-request": CreateDeploymentRequest,
  "create-vm-request": CreateVmRequest,
  deployment: Deployment,
  "deployment-version": DeploymentVersion,
  error: ErrorBody,
  manifest: Manifest,
  plugin: Plugin,
  "plugin-artifact": PluginArtifact,
  "system-info": SystemInfo,
  "system-summary": SystemSummary,
  "vfio-device": VfioDevice,
  "vfio-verdict": VfioVerdict,
  vm: Vm,
  "vm-config": VmConfigState,
  "vm-config-version": VmConfigVersion,
  "vm-event": NumberedVmEvent,
  "vm-log-line": VmLogLine,
};

interface PlainSchema {
  readonly properties?: Readonly<Record<string, PlainSchema>>;
  readonly patternProperties?: Readonly<Record<string, PlainSchema>>;
  readonly items?: PlainSchema;
}

/** Fields of a schema that an example lacks, by their paths. */
function lacking(schema: PlainSchema, example: unknown, at: string): string[] {
  if (schema.items !== undefined) {
    const [first] = Array.isArray(example) ? (example as unknown[]) : [];
    return first === undefined ? [`${at}[0]`] : lacking(schema.items, first, `${at}[0]`);
  }
  const fields = (example ?? {}) as Readonly<Record<string, unknown>>;
  const named = Object.entries(schema.properties ?? {}).flatMap(([name, part]) =>
    name in fields ? lacking(part, fields[name], `${at}.${name}`) : [`${at}.${name}`],
  );
  const entries = Object.values(schema.patternProperties ?? {}).flatMap((part) => {
    const [first] = Object.entries(fields);
    return first === undefined ? [`${at}.*`] : lacking(part, first[1], `${at}.${first[0]}`);
  });
  return [...named, ...entries];
}

for (const [name, schema] of Object.entries(RESOURCES)) {
  test(`golden/${name}.json fits its schema, and has every field of it`, () => {
    const example: unknown = JSON.parse(readFileSync(join(directory, `${name}.json`), "utf8"));
    checkSchema(schema, example, name);
    assert.deepEqual(lacking(JSON.parse(JSON.stringify(schema)) as PlainSchema, example, name), []);
  });
}

test("there is no golden file without its resource", () => {
  const names = readdirSync(directory).map((file) => file.replace(/\.json$/, ""));
  assert.deepEqual(names.toSorted(), Object.keys(RESOURCES).toSorted());
});
