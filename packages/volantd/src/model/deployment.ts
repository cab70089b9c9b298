/** Names of replicas, and what of a configuration can't be had by several VMs. Pure. */
import { checkName, VolantError, type VmConfig } from "@volant/contract";
import type { VmSpec } from "./vm-spec.ts";

/** Which replica of which deployment a VM is. */
export interface Replica {
  readonly deploymentId: number;
  /** 1 or above: the number at the end of its name. */
  readonly index: number;
  /** Version of the deployment's configuration that it has been given. */
  readonly version: number;
}

/** `web-3` */
export function replicaName(deployment: string, index: number): string {
  return `${deployment}-${index}`;
}

/** The deployment and number that a VM's name would have as a replica's; undefined for one that no replica can have. */
export function parseReplicaName(name: string): { readonly deployment: string; readonly index: number } | undefined {
  const match = /^(.+)-([1-9][0-9]{0,8})$/.exec(name);
  return match === null ? undefined : { deployment: match[1] ?? "", index: Number(match[2]) };
}

/** @throws VolantError `invalid` when the names of so many replicas would be too long */
export function checkReplicaNames(deployment: string, replicas: number): void {
  checkName("deployment", deployment);
  checkName("VM", replicaName(deployment, Math.max(1, replicas)));
}

/** Settings that say which one VM it is. */
const ONE_VMS_OWN = ["ip_address", "mac_address"] as const satisfies readonly (keyof VmConfig)[];

/**
 * @param where the deployment, for the sentence
 * @throws VolantError `invalid` when so many VMs can't all have this configuration
 */
export function checkReplicable(where: string, spec: Pick<VmSpec, "config" | "tap">, replicas: number): void {
  const own = ONE_VMS_OWN.find((field) => (spec.config[field] ?? "") !== "");
  if (own !== undefined) {
    throw new VolantError("invalid", `${where}: ${own} is for one VM, and a deployment's replicas are made alike`, {
      hint: "leave it out: each replica keeps the address and MAC that it is given",
    });
  }
  if (replicas <= 1) return;
  if (spec.tap !== undefined) {
    throw new VolantError("invalid", `${where}: ${replicas} replicas can't all have the tap "${spec.tap}"`, {
      hint: "leave network.tap out",
    });
  }
  const fixed = spec.config.expose?.find((entry) => entry.host_port !== undefined);
  if (fixed === undefined) return;
  throw new VolantError(
    "invalid",
    `${where}: ${replicas} replicas can't all be reached through port ${fixed.host_port} of this host`,
    { hint: "leave host_port out: each replica gets a port of its own" },
  );
}

/**
 * For what a deployment alone may do to its replicas.
 *
 * @param done such as "stopped"
 * @throws VolantError `wrong_state` for a replica
 */
export function checkNoReplica(
  done: string,
  vm: { readonly spec: Pick<VmSpec, "name">; readonly replica?: Replica | undefined },
  hint: (deployment: string) => string,
): void {
  const deployment = deploymentOf(vm);
  if (deployment === undefined) return;
  const { name } = vm.spec;
  throw new VolantError("wrong_state", `VM "${name}" can't be ${done}: it belongs to deployment "${deployment}"`, {
    hint: hint(deployment),
  });
}

/** The deployment that a VM is a replica of: its name is what the number and its hyphen leave. */
export function deploymentOf(vm: {
  readonly spec: Pick<VmSpec, "name">;
  readonly replica?: Replica | undefined;
}): string | undefined {
  return vm.replica === undefined ? undefined : parseReplicaName(vm.spec.name)?.deployment;
}
