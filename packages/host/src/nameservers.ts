/** The name servers that guests can use: the host's real upstreams, not a resolver that listens on the host's loopback. */
import { isIPv4 } from "node:net";
import { listFolder, readTextFile } from "./linux/files.ts";

/** glibc and musl ask at most three (resolv.conf(5), MAXNS). */
const MAX_NAMESERVERS = 3;

const MAIN_FILE = "/etc/resolv.conf";

/**
 * Where programs that put a resolver of their own on loopback leave the servers that they ask: systemd-resolved,
 * NetworkManager, resolvconf's dnsmasq hook, and openresolv.
 */
const UPSTREAM_FILES = [
  "/run/systemd/resolve/resolv.conf",
  "/run/NetworkManager/no-stub-resolv.conf",
  "/run/dnsmasq/resolv.conf",
  "/var/run/dnsmasq/resolv.conf",
];

/** resolvconf keeps one file for each source of servers here. */
const UPSTREAM_FOLDERS = ["/run/resolvconf/interface", "/run/resolvconf/interfaces"];

/** dnsmasq's own settings may name upstreams, as `server=192.0.2.1`. */
const DNSMASQ_FILES = ["/etc/dnsmasq.conf", "/etc/dnsmasq.d", "/etc/NetworkManager/dnsmasq.d"];

/** Reads files. The host's disk is one; tests have another. */
export interface NameserverFiles {
  /** What the file holds, or undefined when it can't be read. */
  readFile(path: string): Promise<string | undefined>;
  /** Names in a folder, or nothing when it can't be read. */
  listFolder(path: string): Promise<readonly string[]>;
}

const hostFiles: NameserverFiles = {
  readFile: async (path) => {
    try {
      return await readTextFile(path);
    } catch {
      // Unreadable is as good as absent: there are other files to look at.
      return undefined;
    }
  },
  listFolder,
};

/** An IPv4 server that a guest can reach: neither this host's loopback nor the wildcard nor multicast. */
function isReachable(address: string): boolean {
  if (!isIPv4(address)) return false;
  const first = Number(address.split(".")[0]);
  return first !== 127 && first !== 0 && first < 224;
}

/** The servers on the `nameserver` lines of a resolv.conf(5), in order, those on loopback and IPv6 ones included. */
export function parseResolvConf(text: string): string[] {
  return text.split("\n").flatMap((line) => {
    // The word must begin its line; `;` and `#` in the first column begin a comment.
    const match = /^nameserver[ \t]+([^\s#;]+)/.exec(line);
    return match?.[1] === undefined ? [] : [match[1]];
  });
}

/** The servers for all names on the `server=` lines of a dnsmasq.conf: those for one domain or on another port are left out. */
export function parseDnsmasqServers(text: string): string[] {
  return text.split("\n").flatMap((line) => {
    const match = /^\s*server\s*=\s*([0-9.]+)(?:#53)?(?:@\S+)?\s*(?:\s#.*)?$/.exec(line);
    return match?.[1] === undefined ? [] : [match[1]];
  });
}

function usable(servers: readonly string[]): string[] {
  return [...new Set(servers.filter(isReachable))].slice(0, MAX_NAMESERVERS);
}

/**
 * The host's real upstream name servers, at most three IPv4 addresses in order of preference; none when the host names none but
 * its own loopback anywhere.
 */
export async function findUpstreamNameservers(files: NameserverFiles = hostFiles): Promise<string[]> {
  const read = async (path: string): Promise<string> => (await files.readFile(path)) ?? "";
  const readFolder = async (path: string): Promise<string> => {
    const names = (await files.listFolder(path)).toSorted();
    return (await Promise.all(names.map((name) => read(`${path}/${name}`)))).join("\n");
  };
  for (const path of [MAIN_FILE, ...UPSTREAM_FILES]) {
    const servers = usable(parseResolvConf(await read(path)));
    if (servers.length > 0) return servers;
  }
  for (const path of UPSTREAM_FOLDERS) {
    const servers = usable(parseResolvConf(await readFolder(path)));
    if (servers.length > 0) return servers;
  }
  for (const path of DNSMASQ_FILES) {
    const servers = usable(parseDnsmasqServers(`${await read(path)}\n${await readFolder(path)}`));
    if (servers.length > 0) return servers;
  }
  return [];
}
