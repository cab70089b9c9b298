/** What set-up can change in a network namespace, as text to compare; and a set-up of its own work folder for tests. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkSettings, LinuxHost, type SetupRequest, type SetupSettings } from "@volant/host";

export function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Everything of the network that set-up or undo could touch. Counters are left out, and so is what changes by itself. */
export function networkState(): Record<string, string> {
  const sysctls = run("sysctl", "-a", "--pattern", "^net\\.")
    .split("\n")
    .filter((line) => !/^net\.netfilter\.nf_conntrack_count |^net\.ipv4\.tcp_fastopen_key|\.stable_secret/.test(line));
  return {
    links: run("ip", "-details", "link", "show").replace(/ \w+_timer +[0-9.]+/g, ""),
    addresses: run("ip", "address", "show").replace(/^.*valid_lft.*$/gm, ""),
    routes: run("ip", "route", "show", "table", "all"),
    iptables: run("iptables-save")
      .replace(/^#.*$/gm, "")
      .replace(/\[\d+:\d+\]/g, ""),
    nftables: run("nft", "-s", "list", "ruleset"),
    sysctls: sysctls.join("\n"),
  };
}

export interface Scratch {
  readonly host: LinuxHost;
  readonly settings: SetupSettings;
  /** Holds the work folder, which does not exist yet. */
  readonly folder: string;
  [Symbol.dispose](): void;
}

/** A set-up with a work folder of its own, which goes at the end. */
export function scratchSetup(change: Partial<SetupRequest> = {}): Scratch {
  const folder = mkdtempSync(join(tmpdir(), "volant-setup-"));
  const workDir = join(folder, "lib", "volant");
  const settings = scratchSettings(workDir, change);
  return {
    host: new LinuxHost(workDir),
    settings,
    folder,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export function scratchSettings(workDir: string, change: Partial<SetupRequest> = {}): SetupSettings {
  return checkSettings({
    bridge: "vbr0",
    subnet: "192.168.127.0/24",
    hostIp: "192.168.127.1",
    runtimeDir: join(workDir, "run"),
    logDir: join(workDir, "logs"),
    workDir,
    bzImage: join(workDir, "kernel", "bzImage"),
    vmlinux: join(workDir, "kernel", "vmlinux"),
    serviceFile: "",
    volantdProgram: "/opt/volant/bin/volantd",
    volarProgram: "/opt/volant/bin/volar",
    adopt: false,
    ...change,
  });
}

/** What Docker's engine leaves in the filter and nat tables, for iptables-restore. */
export const DOCKER_RULES = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
`;
