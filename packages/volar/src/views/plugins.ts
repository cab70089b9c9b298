import type { Plugin, SystemSummary } from "@volant/contract";
import { formatFields, formatTable } from "../table.ts";

/** Plugins as a table. */
export function pluginTable(plugins: SystemSummary["plugins"]): string {
  return formatTable([
    ["NAME", "VERSION", "ENABLED"],
    ...plugins.map(({ name, version, enabled }) => [name, version, enabled ? "yes" : "no"]),
  ]);
}

/** One plugin, a line per field. */
export function pluginFields(plugin: Plugin): string {
  const { manifest } = plugin;
  return formatFields([
    ["name", plugin.name],
    ["version", plugin.version],
    ["enabled", plugin.enabled ? "yes" : "no"],
    ["runtime", plugin.runtime],
    ["cpu", manifest.resources.cpu_cores],
    ["memory", `${manifest.resources.memory_mb} MiB`],
    ["initramfs", manifest.initramfs?.url],
    ["checksum", manifest.initramfs?.checksum],
    ["root disk", manifest.rootfs?.url],
    ["checksum", manifest.rootfs?.checksum],
    ["workload", manifest.workload.base_url],
    ["entrypoint", manifest.workload.entrypoint?.join(" ")],
    ["created", plugin.created_at],
    ["updated", plugin.updated_at],
  ]);
}
