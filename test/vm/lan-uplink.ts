/** A cable from the LAN's router to the outside world, and what a home router does with it: forwarding and masquerading. The host is not on the way. */
import { execFileSync } from "node:child_process";
import { ip } from "../namespace.ts";
import type { Lan } from "./lan.ts";
import { OUTSIDE_ADDRESS, type OutsideWorld } from "./outside-world.ts";

/** RFC 5737 documentation range: what the LAN's guests look like from outside. */
export const LAN_OUTSIDE_ADDRESS = "198.51.100.2";

function run(pid: number, ...command: string[]): void {
  execFileSync("nsenter", ["--net", "--target", String(pid), "--", ...command], {
    stdio: ["ignore", "ignore", "pipe"],
  });
}

/** Goes with the two namespaces. */
export function connectLan(lan: Lan, world: OutsideWorld): void {
  ip(
    "link",
    "add",
    "wan0",
    "netns",
    String(lan.pid),
    "type",
    "veth",
    "peer",
    "name",
    "lan0",
    "netns",
    String(world.pid),
  );
  run(lan.pid, "ip", "address", "add", `${LAN_OUTSIDE_ADDRESS}/24`, "dev", "wan0");
  run(lan.pid, "ip", "link", "set", "wan0", "up");
  run(world.pid, "ip", "address", "add", "198.51.100.1/24", "dev", "lan0");
  run(world.pid, "ip", "link", "set", "lan0", "up");
  run(lan.pid, "ip", "route", "add", `${OUTSIDE_ADDRESS}/32`, "via", "198.51.100.1");
  run(lan.pid, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1");
  run(lan.pid, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "wan0", "-j", "MASQUERADE");
}
