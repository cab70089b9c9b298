import type { FilesWritten } from "@volant/contract";
import type { Transport, UploadBody } from "./transport.ts";

export interface FileCallOptions {
  /** Gives the call up, or breaks the transfer off. */
  readonly signal?: AbortSignal | undefined;
}

/** What is written into a guest. */
export type GuestContent =
  | {
      /** A tar archive: its files go into the directory that the path names, or its one entry becomes the path. */
      readonly archive: UploadBody;
    }
  | {
      /** One file's bytes. */
      readonly file: UploadBody;
      /** In octal; 644 unless given. */
      readonly mode?: string;
    };

/**
 * Files of guests, as they are sent: nothing is held whole (but in browsers what is written, where it is no Blob), and a slow end slows the other one. `@volant/sdk/node` copies from and to this
 * machine's files.
 */
export class FileClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /**
   * A file or directory of a guest as a tar archive with one entry at its top. What the guest puts into it is not to be trusted: names, links and
   * sizes are its own.
   *
   * @param path absolute, in the guest
   * @throws VolantError `not_found`, `wrong_state`, `guest_unreachable`; the stream fails when the transfer breaks off
   */
  async read(vm: string, path: string, options: FileCallOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#transport.request("vms.files.read", {
      params: { name: vm },
      query: { path },
      ...options,
    });
    return response.body as ReadableStream<Uint8Array>;
  }

  /**
   * Writes into a guest, as root. Each file is there whole or not at all.
   *
   * @param path absolute, in the guest
   * @throws VolantError `not_found` without such a directory, `wrong_state` where a file and a directory get into each other's way,
   * `exhausted` when the guest has no space left, `guest_unreachable`
   */
  async write(vm: string, path: string, content: GuestContent, options: FileCallOptions = {}): Promise<FilesWritten> {
    const isArchive = "archive" in content;
    const { body } = await this.#transport.call("vms.files.write", {
      params: { name: vm },
      query: { path, ...(isArchive || content.mode === undefined ? {} : { mode: content.mode }) },
      upload: isArchive ? content.archive : content.file,
      ...(isArchive ? { headers: { "content-type": "application/x-tar" } } : {}),
      ...options,
    });
    return body;
  }
}
