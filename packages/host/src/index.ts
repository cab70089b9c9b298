export { installKernel, type InstalledKernel, type InstallKernelOptions, type KernelSource } from "./kernel/install.ts";
export { loadOrder } from "./kernel/module.ts";
export { kernelFolder, readKernelRecord, type KernelModuleRecord, type KernelRecord } from "./kernel/record.ts";
export { BOOT_MODULES, TRANSPORT_MODULES, type VirtioTransport } from "./kernel/wanted-modules.ts";
