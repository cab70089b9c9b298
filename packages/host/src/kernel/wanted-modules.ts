/**
 * The kernel modules that guests may need. A distribution kernel has hundreds; a guest of Volant's sees virtio devices and nothing else. What a
 * kernel has built in has no file, and is left out without a word.
 */

/** Without a transport the guest sees no device at all. */
export const TRANSPORT_MODULES = { mmio: "virtio_mmio", pci: "virtio_pci" } as const;
export type VirtioTransport = keyof typeof TRANSPORT_MODULES;

/** What every guest's agent loads before it looks for its root: network, the link to the host, entropy, and the power button. */
export const BOOT_MODULES = ["virtio_net", "virtio_console", "virtio_rng", "evdev", "button"] as const;

/** Loaded where the guest has a vsock device. */
export const VSOCK_MODULE = "vmw_vsock_virtio_transport";

/** Kept at hand for guests that ask for more: disks, vsock, other root file systems. */
export const OPTIONAL_MODULES = ["virtio_blk", VSOCK_MODULE, "overlay", "squashfs", "erofs", "virtiofs"] as const;

export const WANTED_MODULES: readonly string[] = [
  TRANSPORT_MODULES.mmio,
  TRANSPORT_MODULES.pci,
  ...BOOT_MODULES,
  ...OPTIONAL_MODULES,
];
