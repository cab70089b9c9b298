/**
 * A LAN: a bridge in the test's own namespace, and a second namespace on it that plays the rest of the segment, with 10.77.0.1 and, when a test asks for
 * one, a DHCP server. The test's namespace has no address on it, as a host that only lends its bridge to guests.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ip } from "../namespace.ts";
import { eventOf, within } from "../patience.ts";
import { end, startInside } from "./outside-world.ts";

export const LAN_BRIDGE = "br-lan";
export const LAN_SERVER = "10.77.0.1";

/** A program in the LAN's namespace. */
export interface LanProgram {
  /** What it has written so far. */
  output(): string;
  stop(): Promise<void>;
}

export interface Lan {
  /** A process that holds the LAN's namespace open. */
  readonly pid: number;
  /** Runs `ip` in the LAN's namespace. */
  ip(...args: string[]): void;
  /** dnsmasq with leases of two minutes, its shortest; `leaseFile` is where it writes them. */
  startDnsmasq(leaseFile: string): Promise<LanProgram>;
  /** Kea with leases of 10 s, renewed after 3 and rebound after 6, remembered under `directory` from one server to the next. */
  startKea(directory: string): Promise<LanProgram>;
  /** A program of the test's own, ready when `ready` appears in its output. */
  start(args: readonly string[], ready: RegExp): Promise<LanProgram>;
  /** A page that a guest serves, fetched from the LAN. */
  fetch(address: string, path?: string, limitMs?: number): Promise<string>;
  close(): Promise<void>;
}

function keaConfig(directory: string): object {
  return {
    Dhcp4: {
      "interfaces-config": { interfaces: ["lan0"], "dhcp-socket-type": "raw" },
      "lease-database": { type: "memfile", persist: true, name: join(directory, "leases.csv"), "lfc-interval": 0 },
      "valid-lifetime": 10,
      "renew-timer": 3,
      "rebind-timer": 6,
      authoritative: true,
      subnet4: [
        {
          subnet: "10.77.0.0/24",
          pools: [{ pool: "10.77.0.100 - 10.77.0.149" }],
          "option-data": [
            { name: "routers", data: LAN_SERVER },
            { name: "domain-name-servers", data: "10.77.0.53" },
          ],
        },
      ],
      loggers: [{ name: "kea-dhcp4", severity: "INFO", output_options: [{ output: "stdout", flush: true }] }],
    },
  };
}

/** Makes the bridge and what is on it. */
export async function openLan(): Promise<Lan> {
  // The namespace lives as long as this process: `cat` waits for an end of input that never comes.
  const holder = spawn("unshare", ["--net", "--", "sh", "-c", "ip link set lo up && echo ready && exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await eventOf(holder.stdout, "data", "a network namespace");
  const { pid } = holder;
  if (pid === undefined) throw new Error("unshare did not start");
  const enter = ["--net", "--target", String(pid), "--"];
  const inside = (...args: string[]): void => {
    execFileSync("nsenter", [...enter, "ip", ...args], { stdio: ["ignore", "ignore", "pipe"] });
  };
  ip("link", "add", LAN_BRIDGE, "type", "bridge");
  ip("link", "set", LAN_BRIDGE, "up");
  ip("link", "add", "lan-port", "type", "veth", "peer", "name", "lan0", "netns", String(pid));
  ip("link", "set", "lan-port", "master", LAN_BRIDGE, "up");
  inside("address", "add", `${LAN_SERVER}/24`, "dev", "lan0");
  inside("link", "set", "lan0", "up");
  const running = new Set<ChildProcess>();
  const start = async (args: readonly string[], ready: RegExp): Promise<LanProgram> => {
    const child = await startInside(pid, args, ready);
    running.add(child);
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream?.on("data", (text: Buffer) => (output += text.toString()));
    return {
      output: () => output,
      stop: async () => {
        running.delete(child);
        await end(child);
      },
    };
  };
  return {
    pid,
    ip: inside,
    start,
    startDnsmasq: (leaseFile) =>
      start(
        [
          "dnsmasq",
          "--keep-in-foreground",
          "--log-facility=-",
          "--conf-file=/dev/null",
          "--user=root",
          "--pid-file=",
          "--port=0",
          "--interface=lan0",
          "--bind-dynamic",
          "--dhcp-authoritative",
          "--dhcp-range=10.77.0.50,10.77.0.99,255.255.255.0,2m",
          `--dhcp-option=option:router,${LAN_SERVER}`,
          "--dhcp-option=option:dns-server,10.77.0.53",
          "--domain=lan.example",
          `--dhcp-leasefile=${leaseFile}`,
        ],
        /started, version/,
      ),
    startKea: (directory) => {
      mkdirSync(directory, { recursive: true });
      const config = join(directory, "kea.json");
      writeFileSync(config, JSON.stringify(keaConfig(directory)));
      const folders = [`KEA_PIDFILE_DIR=${directory}`, `KEA_LOCKFILE_DIR=${directory}`];
      return start(["env", ...folders, "kea-dhcp4", "-c", config], /DHCP4_STARTED/);
    },
    fetch: async (address, path = "", limitMs = 30_000) => {
      const program = `fetch(process.argv[1], { signal: AbortSignal.timeout(${limitMs}) }).then((page) => page.text()).then((text) => process.stdout.write(text))`;
      const child = spawn("nsenter", [...enter, process.execPath, "-e", program, `http://${address}/${path}`], {
        stdio: ["ignore", "pipe", "ignore"],
      });
      let text = "";
      child.stdout.setEncoding("utf8").on("data", (part: string) => (text += part));
      const [code] = (await within(once(child, "close"), `a page of ${address}`)) as [number | null];
      if (code !== 0) throw new Error(`a page of ${address} can't be fetched from the LAN`);
      return text;
    },
    close: async () => {
      for (const child of running) await end(child);
      await end(holder);
      ip("link", "del", LAN_BRIDGE);
      // The link goes with the namespace at the other end of the pair, but when is the kernel's choice.
      try {
        ip("link", "del", "lan-port");
      } catch {
        // It went first.
      }
    },
  };
}
