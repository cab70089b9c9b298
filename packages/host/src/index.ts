export { inspectDatabase } from "./database/database-file.ts";
export { type DatabaseLock, tryLockDatabase } from "./database/database-lock.ts";
export { type DatabaseFacts, type RestorePlan } from "./database/plan-restore.ts";
export { type Restored, restoreDatabase, type RestoreRequest } from "./database/restore.ts";
export { findRunningVms } from "./database/running-vms.ts";
export { diagnose, worstLevel } from "./doctor/diagnose.ts";
export { CHECKS, type CheckName, type Finding, type Level } from "./doctor/finding.ts";
export { type DoctorRequest, observeForDoctor } from "./doctor/observe.ts";
export type { DoctorSettings, DoctorView, SeenVolantd } from "./doctor/view.ts";
export { installKernel, type InstalledKernel, type InstallKernelOptions, type KernelSource } from "./kernel/install.ts";
export { loadOrder } from "./kernel/module.ts";
export { kernelFolder, readKernelRecord, type KernelModuleRecord, type KernelRecord } from "./kernel/record.ts";
export { BOOT_MODULES, TRANSPORT_MODULES, type VirtioTransport, VSOCK_MODULE } from "./kernel/wanted-modules.ts";
export { HOLDABLE_NAMES, isHoldableTap, isHostAddress, TAP_PREFIX } from "./policy/entry.ts";
export { LinuxHost } from "./linux/linux-host.ts";
export { findProgram } from "./linux/programs.ts";
export { findUpstreamNameservers, type NameserverFiles } from "./nameservers.ts";
export {
  inspectSetup,
  previewSetup,
  type Progress,
  refusalError,
  restoreNetwork,
  type RestoreResult,
  runSetup,
  type SetupCondition,
  type SetupOptions,
  undoSetup,
  type UndoResult,
} from "./setup/apply.ts";
export {
  furtherAlias,
  furtherMac,
  type FurtherMark,
  furtherNames,
  type FurtherPart,
  MAX_BRIDGE_PORTS,
  MAX_FURTHER_NUMBER,
  parseFurtherAlias,
  trunkPorts,
} from "./setup/further.ts";
export { type PciDevice, PciSysfs, type PciSysfsOptions } from "./pci-sysfs.ts";
export type { ObserveRequest, SetupHost } from "./setup/host-port.ts";
export { type FirewallRule, type Operation, operationCommands } from "./setup/operation.ts";
export type { Refusal, SetupAction, SetupPlan, UnwrittenFile } from "./setup/plan.ts";
export type { SetupRecord } from "./setup/record.ts";
export {
  bridgeAlias,
  bridgeMac,
  checkBridgeName,
  checkSettings,
  ruleComment,
  type SetupRequest,
  type SetupSettings,
} from "./setup/settings.ts";
export type { UndoStep } from "./setup/undo.ts";
export { serviceUnit } from "./setup/unit.ts";
