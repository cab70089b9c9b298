import type { VmConfigState, VmConfigVersion } from "@volant/contract";
import { formatFields, formatTable, printable } from "../table.ts";

/** Which version it is, then the configuration as a program would write it. */
export function configText(state: VmConfigState): string {
  const fields = formatFields([
    ["version", state.version],
    ["updated", state.updated_at],
    ["pending", state.pending ? "some of it is in force only from the next start" : undefined],
  ]);
  const json = JSON.stringify(state.config, undefined, 2).split("\n");
  return `${fields}${json.map((line) => `${printable(line)}\n`).join("")}`;
}

/** Versions as a table. */
export function historyTable(versions: readonly VmConfigVersion[]): string {
  return formatTable([
    ["VERSION", "UPDATED", "CONFIGURATION"],
    ...versions.map(({ version, updated_at: updatedAt, config }) => [
      String(version),
      updatedAt,
      JSON.stringify(config),
    ]),
  ]);
}

/** What a version goes by. */
export function versionNumbers(versions: readonly { readonly version: number }[]): string[] {
  return versions.map(({ version }) => String(version));
}
