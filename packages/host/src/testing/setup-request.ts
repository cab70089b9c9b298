/** A set-up request with the contract's defaults, for tests. */
import { DEFAULTS } from "@volant/contract";
import type { SetupRequest } from "../setup/settings.ts";

export function setupRequest(change: Partial<SetupRequest> = {}): SetupRequest {
  return {
    bridge: DEFAULTS.bridge,
    subnet: DEFAULTS.subnet,
    hostIp: DEFAULTS.hostIp,
    runtimeDir: "/root/.volant/run",
    logDir: "/root/.volant/logs",
    workDir: DEFAULTS.workDir,
    bzImage: `${DEFAULTS.workDir}/kernel/bzImage`,
    vmlinux: `${DEFAULTS.workDir}/kernel/vmlinux`,
    serviceFile: DEFAULTS.serviceFile,
    volantdProgram: "/opt/volant/bin/volantd",
    volarProgram: "/opt/volant/bin/volar",
    adopt: false,
    ...change,
  };
}
