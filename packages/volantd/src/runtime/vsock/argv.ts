/**
 * From a VM to the arguments of the program that serves its vsock device. Pure.
 *
 * There is no argument that could be a mark and nothing else, so the group's name is it. It has a second use: a guest can reach only guests of its own
 * group, and no other VM has this one's.
 */
import { VolantError } from "@volant/contract";
import { formatProcessMark, type ProcessMark } from "../process-mark.ts";

export const BACKEND_PROGRAM = "vhost-device-vsock";
/** The program's sockets, in its working directory: the hypervisor's end, and the one for connections to the guest. */
export const DEVICE_SOCKET = "vu";
export const CONNECT_SOCKET = "vs";

/** 0 to 2 are the hypervisor, the loopback and the host (vsock(7)); the last one stands for any. */
const FIRST_CID = 3;
const LAST_CID = 0xffff_fffe;

/**
 * The arguments, without the program itself.
 *
 * @param cid the guest's context id
 * @throws VolantError `invalid` for a context id that no guest can have
 */
export function backendArguments(mark: ProcessMark, cid: number): string[] {
  if (!Number.isInteger(cid) || cid < FIRST_CID || cid > LAST_CID) {
    throw new VolantError("invalid", `${cid} is no context id of a guest: they are ${FIRST_CID} to ${LAST_CID}`);
  }
  const options = [
    `guest-cid=${cid}`,
    `socket=${DEVICE_SOCKET}`,
    `uds-path=${CONNECT_SOCKET}`,
    `groups=${formatProcessMark(mark)}`,
  ];
  return ["--vm", options.join(",")];
}
