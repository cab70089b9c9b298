/** The three network modes, and which of a VM's parts each of them needs. */
import { VolantError, type Manifest, type Network, type NetworkMode, type VmConfig } from "@volant/contract";

const MODES: readonly string[] = ["bridged", "vsock", "dhcp"];

/**
 * The network a VM has: its own where it has one, else the manifest's, else the default (undefined). The winner is taken whole.
 */
export function resolveNetworkConfig(
  manifest: Pick<Manifest, "network"> | undefined,
  vmConfig: Pick<VmConfig, "network"> | undefined,
): Network | undefined {
  return vmConfig?.network ?? manifest?.network;
}

/**
 * The mode of a network, compared trimmed and in lower case; a missing network or an empty mode is `bridged`.
 *
 * @throws VolantError `invalid` for any other word
 */
export function networkMode(config: Pick<Network, "mode"> | undefined): NetworkMode {
  const mode = (config?.mode ?? "").trim().toLowerCase();
  if (mode === "") return "bridged";
  if (MODES.includes(mode)) return mode as NetworkMode;
  throw new VolantError(
    "invalid",
    `network mode ${JSON.stringify(config?.mode)} does not exist: use bridged, vsock or dhcp`,
  );
}

/** Whether a VM with this network has a tap: all but `vsock`. */
export function needsTapDevice(config: Pick<Network, "mode"> | undefined): boolean {
  return (config?.mode ?? "").trim().toLowerCase() !== "vsock";
}

/** Whether the host leases an address to a VM with this network: only `bridged`. */
export function needsIPAllocation(config: Pick<Network, "mode"> | undefined): boolean {
  const mode = (config?.mode ?? "").trim().toLowerCase();
  return mode === "" || mode === "bridged";
}
