/** A managed network with taps that a test holds, for what concerns further bridges. */
import assert from "node:assert/strict";
import { closeSync, readSync, writeSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { restoreNetwork } from "@volant/host";
import { Netlink } from "@volant/netlink";
import { BridgeManager, type BridgeManagerOptions } from "../../packages/volantd/src/network/bridge-manager.ts";
import type { MarkedTap } from "../../packages/volantd/src/network/network-manager.ts";
import { PolicyKeeper } from "../../packages/volantd/src/network/policy-keeper.ts";
import { macAddress } from "../../packages/volantd/src/model/mac.ts";
import { ipJson } from "../namespace.ts";
import { arp, BROADCAST, ethernet, ipv4, udp } from "./policy-frames.ts";
import { holdTap } from "./policy-lan.ts";
import type { Scratch } from "./setup-state.ts";

export const INSTALLATION = "abcdef01";
export const GATEWAY = "10.77.0.1";
/** Many times what it takes on a busy machine. */
export const PATIENCE_MS = 20_000;
/** struct virtio_net_hdr, legacy form. */
const VNET_HEADER = Buffer.alloc(10);

/** Room for two taps on the managed bridge, and for three on each of two further ones. */
export const SMALL = { bridgePorts: 4, trunks: 2 };

export async function openManager(
  { host }: Scratch,
  change: Partial<BridgeManagerOptions> = {},
): Promise<BridgeManager> {
  const netlink = await Netlink.open();
  const installation = change.installation ?? INSTALLATION;
  return new BridgeManager({
    netlink,
    policy: new PolicyKeeper({ netlink, installation }),
    installation,
    bridge: "vbr0",
    hostAddress: GATEWAY,
    lans: { check: async () => undefined, made: async () => [] },
    restore: async () => (await restoreNetwork(host)).restored,
    limits: SMALL,
    ...change,
  });
}

/** The name of the bridge that a link is a port of. */
export function masterOf(name: string): string | undefined {
  return ipJson("link", "show", "dev", name)[0]?.["master"] as string | undefined;
}

/** A guest's tap, and the guest's end of it. */
export class Guest {
  readonly vmId: number;
  readonly tap: string;
  readonly mac: string;
  readonly address: string;
  #fd: number | undefined;
  #sent = 0;

  constructor(vmId: number) {
    this.vmId = vmId;
    this.tap = `vttap-g${vmId}`;
    this.mac = macAddress(INSTALLATION, vmId);
    this.address = `10.77.0.${10 + vmId}`;
  }

  /** Makes the tap, held to the guest's address unless it may send what it likes, and holds it open. */
  async start(manager: BridgeManager, antiSpoof = true): Promise<void> {
    const { vmId, tap, mac, address } = this;
    await manager.putPolicy({ vmId, tap, mac, mode: "bridged", addresses: [address], antiSpoof });
    await manager.createTap({ vmId, name: tap, uid: 0, guarded: antiSpoof });
    this.hold(tap);
  }

  /** Speaks over this tap from now on. */
  hold(tap: string): void {
    this.#fd = holdTap(tap);
  }

  stop(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  async seen(manager: BridgeManager): Promise<MarkedTap> {
    const found = (await manager.observe()).taps.find(({ vmId }) => vmId === this.vmId);
    assert.ok(found !== undefined, `${this.tap} is seen`);
    return found;
  }

  /** A mark that no other frame has. */
  tag(): Buffer {
    this.#sent += 1;
    return Buffer.from(`further-${this.vmId}-${this.#sent};`);
  }

  send(frame: Buffer): void {
    assert.ok(this.#fd !== undefined, `${this.tap} is open`);
    writeSync(this.#fd, Buffer.concat([VNET_HEADER, frame]));
  }

  /** The frames that have come since the last call. */
  received(): Buffer[] {
    assert.ok(this.#fd !== undefined, `${this.tap} is open`);
    const frames: Buffer[] = [];
    const buffer = Buffer.alloc(70_000);
    for (;;) {
      try {
        const length = readSync(this.#fd, buffer);
        frames.push(Buffer.from(buffer.subarray(VNET_HEADER.length, length)));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "EAGAIN") return frames;
        throw error;
      }
    }
  }

  /** All frames up to and with the first one for which `wanted` holds. */
  async until(wanted: (frame: Buffer) => boolean, what: string): Promise<Buffer[]> {
    const end = Date.now() + PATIENCE_MS;
    const frames: Buffer[] = [];
    for (;;) {
      frames.push(...this.received());
      if (frames.some(wanted)) return frames;
      if (Date.now() > end) assert.fail(`${this.tap} got no ${what}, but ${frames.length} other frames`);
      await nextTurn();
    }
  }

  /** Asks for an address, and waits for the first answer; all answers up to then, as hardware addresses. */
  async askFor(address: string): Promise<string[]> {
    this.received();
    this.send(this.#question(address));
    const isAnswer = (frame: Buffer): boolean =>
      frame.readUInt16BE(12) === 0x0806 && frame.readUInt16BE(20) === 2 && ipText(frame, 28) === address;
    const frames = await this.until(isAnswer, `answer to its question for ${address}`);
    return frames.filter(isAnswer).map((frame) => macText(frame.subarray(22, 28)));
  }

  #question(address: string): Buffer {
    return ethernet(
      this.mac,
      0x0806,
      arp({ senderMac: this.mac, senderIp: this.address, targetIp: address }, Buffer.alloc(18)),
    );
  }

  datagram(to: { readonly mac?: string; readonly address: string; readonly port?: number }, payload: Buffer): Buffer {
    const header = { source: this.address, destination: to.address };
    return ethernet(this.mac, 0x0800, ipv4(header, udp(4000, to.port ?? 4001, payload)), to.mac ?? BROADCAST);
  }

  /** Sends a marked datagram to each of the others, who must get it. */
  async reaches(...others: readonly Guest[]): Promise<void> {
    for (const other of others) {
      const tag = this.tag();
      this.send(this.datagram(other, tag));
      await other.until((frame) => frame.includes(tag), `datagram of ${this.tap}`);
    }
  }
}

export function ipText(frame: Buffer, at: number): string {
  return [...frame.subarray(at, at + 4)].join(".");
}

function macText(bytes: Buffer): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** Looks until it is so. */
export async function eventually(
  what: string,
  look: () => Promise<boolean> | boolean,
  seen: () => string,
): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!(await look())) {
    if (Date.now() > end) assert.fail(`not so within ${PATIENCE_MS} ms: ${what}; there is: ${seen()}`);
    await nextTurn();
  }
}
