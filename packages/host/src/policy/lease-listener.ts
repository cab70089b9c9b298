/** Follows a DHCP guest's messages and the answers to them as they pass by its tap. It only looks: nothing is held up or changed. */
import { type BpfInstruction, watchPackets } from "@volant/netlink";
import { readDhcpFrame } from "./dhcp-message.ts";
import { type LeaseChange, LeaseWatch } from "./lease-watch.ts";

export interface LeaseListenerOptions {
  /** The tap's index. */
  readonly link: number;
  readonly mac: string;
  /** Whether the guest has a lease already. */
  readonly holds: boolean;
  readonly onChange: (change: LeaseChange) => void;
  /** The tap is gone or down: nothing is seen any more. */
  readonly onEnd: () => void;
}

/** SKF_AD_VLAN_TAG_PRESENT: a packet socket shows a tagged frame without its tag (include/uapi/linux/filter.h). */
const VLAN_TAG_PRESENT = 0xffff_f030;

/** Whole, untagged UDP datagrams between the ports of DHCP, 67 and 68. */
const DHCP_ONLY: readonly BpfInstruction[] = [
  [0x20, 0, 0, VLAN_TAG_PRESENT],
  [0x15, 0, 13, 0],
  [0x28, 0, 0, 12],
  [0x15, 0, 11, 0x0800],
  [0x30, 0, 0, 23],
  [0x15, 0, 9, 17],
  [0x28, 0, 0, 20],
  [0x45, 7, 0, 0x3fff],
  [0xb1, 0, 0, 14],
  [0x48, 0, 0, 14],
  [0x15, 1, 0, 67],
  [0x15, 0, 3, 68],
  [0x48, 0, 0, 16],
  [0x15, 2, 0, 67],
  [0x15, 1, 0, 68],
  [0x06, 0, 0, 0],
  [0x06, 0, 0, 4096],
];

/** Begins to follow; in force when this returns. Throws NetlinkError when the tap is gone. */
export function listenForLease({ link, mac, holds, onChange, onEnd }: LeaseListenerOptions): { close(): void } {
  const watch = new LeaseWatch(mac, holds);
  return watchPackets({
    link,
    filter: DHCP_ONLY,
    onEnd,
    onFrame({ direction, frame }) {
      const message = readDhcpFrame(frame);
      if (message === undefined) return;
      const change = direction === "in" ? watch.fromGuest(message) : watch.toGuest(message);
      if (change !== undefined) onChange(change);
    },
  });
}
