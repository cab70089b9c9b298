/** netlink for this package: loaded when it is used, so that importing the package off Linux loads neither it nor the FFI behind it. */
import type { Netlink, NetlinkError } from "@volant/netlink";

/** @throws NetlinkError when the kernel gives no netlink socket, or there is none on this platform */
export async function openNetlink(): Promise<Netlink> {
  const { Netlink: loaded } = await import("@volant/netlink");
  return await loaded.open();
}

/** By its name: asking for the class would load it. */
export function isNetlinkError(error: unknown): error is NetlinkError {
  return error instanceof Error && error.name === "NetlinkError";
}
