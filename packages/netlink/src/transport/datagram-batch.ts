/**
 * Many datagrams by one recvmmsg(2). The kernel makes each part of a dump inside the receiving of it, so that a dump of a thousand links would take some forty calls, each of which has to
 * go to another thread and back.
 */
import { checkSource } from "./source.ts";
import type { Libc } from "./libc.ts";

/** struct sockaddr_nl. */
const ADDRESS_BYTES = 12;
/** struct mmsghdr and its parts, where a pointer has 8 bytes (recvmmsg(2), include/linux/socket.h). */
const HEADER_BYTES = 64;
const NAME_OFFSET = 0;
const NAME_LENGTH_OFFSET = 8;
const PARTS_OFFSET = 16;
const PART_COUNT_OFFSET = 24;
const LENGTH_OFFSET = 56;
/** struct iovec. */
const PART_BYTES = 16;
/** Machines that netlink runs on and on which structures are laid out like this. */
const WIDE: ReadonlySet<string> = new Set(["x64", "arm64", "riscv64", "loong64"]);

export class DatagramBatch {
  readonly #libc: Libc;
  readonly #count: number;
  readonly #datagramBytes: number;
  readonly #datagrams: Buffer;
  readonly #sources: Buffer;
  readonly #parts: Buffer;
  readonly #headers: Buffer;

  /** Whether this machine lays structures out as it is assumed here. */
  static get isPossible(): boolean {
    return WIDE.has(process.arch);
  }

  /** Room for `count` datagrams of `datagramBytes` each. */
  constructor(c: Libc, count: number, datagramBytes: number) {
    this.#libc = c;
    this.#count = count;
    this.#datagramBytes = datagramBytes;
    this.#datagrams = Buffer.allocUnsafeSlow(count * datagramBytes);
    this.#sources = Buffer.alloc(count * ADDRESS_BYTES);
    this.#parts = Buffer.alloc(count * PART_BYTES);
    this.#headers = Buffer.alloc(count * HEADER_BYTES);
    const [datagrams, sources, parts] = [this.#datagrams, this.#sources, this.#parts].map((each) =>
      c.addressOf(each),
    ) as [bigint, bigint, bigint];
    for (let index = 0; index < count; index += 1) {
      const part = index * PART_BYTES;
      this.#parts.writeBigUInt64LE(datagrams + BigInt(index * datagramBytes), part);
      this.#parts.writeBigUInt64LE(BigInt(datagramBytes), part + 8);
      const header = index * HEADER_BYTES;
      this.#headers.writeBigUInt64LE(sources + BigInt(index * ADDRESS_BYTES), header + NAME_OFFSET);
      this.#headers.writeBigUInt64LE(parts + BigInt(part), header + PARTS_OFFSET);
      this.#headers.writeBigUInt64LE(1n, header + PART_COUNT_OFFSET);
    }
  }

  /**
   * What is there and has room; waits for no more. What some other process sent is left out.
   *
   * @returns the datagrams, of use until the next call; or -errno. One that is longer than there is room is given by its length alone.
   */
  async receive(fd: number, flags: number): Promise<readonly (Buffer | number)[] | number> {
    for (let index = 0; index < this.#count; index += 1) {
      this.#headers.writeUInt32LE(ADDRESS_BYTES, index * HEADER_BYTES + NAME_LENGTH_OFFSET);
    }
    const count = await this.#libc.receiveManyAsync(fd, this.#headers, this.#count, flags);
    if (count < 0) return count;
    const received: (Buffer | number)[] = [];
    for (let index = 0; index < count; index += 1) {
      const source = this.#sources.subarray(index * ADDRESS_BYTES, (index + 1) * ADDRESS_BYTES);
      const length = checkSource(this.#headers.readUInt32LE(index * HEADER_BYTES + LENGTH_OFFSET), source);
      if (length > this.#datagramBytes) received.push(length);
      else if (length > 0) {
        const start = index * this.#datagramBytes;
        received.push(this.#datagrams.subarray(start, start + length));
      }
    }
    return received;
  }
}
