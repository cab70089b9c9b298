import type { Readable } from "node:stream";
import type { KernelFiles } from "../runtime/runtime.ts";

/** A boot image made for a plugin: Volant's base initramfs and the plugin's own in one file, kept by digest. */
export interface BootImage {
  readonly initrdPath: string;
  /** Bytes that the archives take up once the guest has unpacked them. */
  readonly unpackedBytes: number;
}

/** Files by digest. Everything in here was put by `volar` or found in volantd's own folders, and verified. */
export interface ImageStore {
  /** Whether the content with this checksum (`sha256:<hex>`) is here. */
  has(checksum: string): Promise<boolean>;
  /**
   * Takes a file in. Written aside, verified, synced and renamed into place: a reader never sees half a file.
   *
   * @throws VolantError `checksum_mismatch`, `too_large`
   */
  put(checksum: string, content: Readable): Promise<void>;
  /**
   * The checksum under which a manifest's file is kept. A file with a checksum that is here already is not read again; a `file://` URL or
   * absolute path is taken in only from volantd's own folders.
   *
   * @throws VolantError `invalid` (no such file, or outside the folders), `checksum_mismatch`, `not_supported` (http, https)
   */
  adopt(file: { readonly url: string; readonly checksum?: string }): Promise<string>;
  /** Where the content with this checksum is kept, whether it is here or not. */
  pathOf(checksum: string): string;
  /** @throws VolantError `not_found` when it isn't here */
  sizeOf(checksum: string): Promise<number>;
  /**
   * The boot image for a plugin's initramfs.
   *
   * @throws VolantError `not_found` when the content isn't here, `invalid` when it is no cpio archive, `not_ready` when the agent or kernel is missing
   */
  bootImage(initramfsChecksum: string): Promise<BootImage>;
  /** @throws VolantError `not_ready` when no kernel is installed, with the command that installs one */
  kernel(): Promise<KernelFiles>;
  /** Removes contents that no checksum in `keep` names and nothing references any more. */
  prune(keep: ReadonlySet<string>): Promise<void>;
}
