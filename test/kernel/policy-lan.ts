/** A bridge with guests' taps, and a port that stands for the outside, for the tests of the guests' policy. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, readSync, writeFileSync, writeSync } from "node:fs";
import koffi from "koffi";
import type { TapGuard } from "../../packages/host/src/policy/tap-guard.ts";
import { ip, ipJson } from "../namespace.ts";

export const BRIDGE = "vbr0";
export const GATEWAY = "10.77.0.1";
export const GATEWAY_MAC = "02:77:00:00:00:fe";

const TUNSETIFF = 0x400454ca;
/** IFF_TAP | IFF_NO_PI | IFF_VNET_HDR (include/uapi/linux/if_tun.h). */
const TAP_FLAGS = 0x0002 | 0x1000 | 0x4000;
/** struct virtio_net_hdr, legacy form. */
const VNET_HEADER_BYTES = 10;

const ioctl = koffi.load(null).func("ioctl", "int", ["int", "unsigned long", "void *"]) as unknown as (
  fd: number,
  request: number,
  argument: Buffer,
) => number;

/** A descriptor on the tap of that name, which is made where there is none. Reading from it does not wait. */
export function holdTap(name: string): number {
  const fd = openSync("/dev/net/tun", constants.O_RDWR | constants.O_NONBLOCK);
  const request = Buffer.alloc(40);
  request.write(name, 0, 15, "utf8");
  request.writeUInt16LE(TAP_FLAGS, 16);
  assert.equal(ioctl(fd, TUNSETIFF, request), 0, `can't have the tap ${name}`);
  return fd;
}

/** A tap that is a port of the bridge, and the guest's end of it in our hands. */
export class Port implements Disposable {
  readonly name: string;
  readonly #fd: number;

  private constructor(name: string) {
    this.name = name;
    this.#fd = holdTap(name);
    ip("link", "set", name, "addrgenmode", "none");
  }

  /** @param guard what its frames go through first; nothing where it is absent */
  static async open(name: string, guard: TapGuard | undefined): Promise<Port> {
    const port = new Port(name);
    try {
      await guard?.bind(Number(ipJson("link", "show", "dev", name)[0]?.["ifindex"]));
      ip("link", "set", name, "master", BRIDGE, "up");
      return port;
    } catch (error) {
      port[Symbol.dispose]();
      throw error;
    }
  }

  /** Sends a frame as the guest would. */
  send(frame: Buffer, vnetHeader: Buffer = Buffer.alloc(VNET_HEADER_BYTES)): void {
    const bytes = Buffer.concat([vnetHeader, frame]);
    assert.equal(writeSync(this.#fd, bytes), bytes.length);
  }

  /** Sends a frame that the kernel may refuse: whether it took it. */
  offer(frame: Buffer, vnetHeader: Buffer): boolean {
    try {
      this.send(frame, vnetHeader);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EINVAL") return false;
      throw error;
    }
  }

  /** The frames that have come to the guest since the last call. */
  received(): Buffer[] {
    const frames: Buffer[] = [];
    const buffer = Buffer.alloc(70_000);
    for (;;) {
      try {
        const length = readSync(this.#fd, buffer);
        frames.push(Buffer.from(buffer.subarray(VNET_HEADER_BYTES, length)));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "EAGAIN") return frames;
        throw error;
      }
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/** br_netfilter drops malformed packets; it is kept away, so that nothing but the policy drops any. */
const BRIDGE_NETFILTER = ["iptables", "ip6tables", "arptables"] as const;

/** Makes the bridge. */
export function makeBridge(): void {
  for (const table of BRIDGE_NETFILTER) writeFileSync(`/proc/sys/net/bridge/bridge-nf-call-${table}`, "0");
  ip("link", "add", BRIDGE, "address", GATEWAY_MAC, "type", "bridge", "mcast_snooping", "0");
  ip("address", "add", `${GATEWAY}/24`, "dev", BRIDGE);
  ip("link", "set", BRIDGE, "up");
}

export function deleteBridge(): void {
  ip("link", "delete", BRIDGE);
}

/** Hardware addresses that the bridge has learned, without those it was told. */
export function learnedMacs(): string[] {
  const text = execFileSync("bridge", ["-json", "fdb", "show", "br", BRIDGE], { encoding: "utf8" });
  const entries = JSON.parse(text) as { readonly mac: string; readonly state: string }[];
  return [...new Set(entries.filter(({ state }) => state !== "permanent").map(({ mac }) => mac))].toSorted();
}

/** The hardware address that the host believes to be at `address`, or undefined. */
export function neighbourMac(address: string): string | undefined {
  const [entry] = ipJson("neighbour", "show", "to", address, "dev", BRIDGE);
  return entry?.["lladdr"] as string | undefined;
}
