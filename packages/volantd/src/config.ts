/** volantd's settings, all from the environment. Pure: what is wrong is said by the variable's name. */
import { isIP } from "node:net";
import { join } from "node:path";
import { DEFAULTS, VolantError } from "@volant/contract";
import { isUsable, parseAddress, parseSubnet } from "./model/address.ts";
import type { ManagedNetwork } from "./model/manifest.ts";
import { isLinkName } from "./model/tap-name.ts";

export interface Config {
  readonly listenHost: string;
  readonly listenPort: number;
  readonly advertise: string | undefined;
  readonly apiKey: string | undefined;
  readonly allowCidrs: readonly string[];
  readonly corsOrigins: readonly string[];
  readonly managed: ManagedNetwork;
  readonly runtimeDir: string;
  readonly logDir: string;
  readonly dbPath: string;
  readonly workDir: string;
  readonly bzImagePath: string;
  readonly vmlinuxPath: string;
  readonly hypervisor: string | undefined;
  /** Undefined: a bridge on Linux, none elsewhere. */
  readonly network: "bridge" | "noop" | undefined;
  /** Name servers of guests; undefined takes the host's upstreams. */
  readonly nameservers: readonly string[] | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

function wrong(variable: string, problem: string): VolantError {
  return new VolantError("invalid", `${variable} ${problem}`);
}

/** A variable's value; an empty one is as good as none. */
function read(env: Environment, variable: string): string | undefined {
  const value = env[variable]?.trim();
  return value === "" ? undefined : value;
}

function list(value: string | undefined): string[] {
  return (value ?? "").split(/[\s,]+/).filter((item) => item !== "");
}

function parseListen(value: string): { host: string; port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:\s]*)):(\d{1,5})$/.exec(value);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw wrong(
      "VOLANT_API_LISTEN",
      `must be host:port, such as ${DEFAULTS.apiListen}, and is ${JSON.stringify(value)}`,
    );
  }
  const host = match[1] ?? match[2] ?? "";
  return { host: host === "" ? "0.0.0.0" : host, port };
}

/** RFC 1122, 3.2.1.3 and RFC 4291, 2.5.3. */
function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

function checkCidr(variable: string, value: string): string {
  const [address = "", length, ...rest] = value.split("/");
  const family = isIP(address);
  const bits = length === undefined || /^\d{1,3}$/.test(length) ? Number(length ?? 0) : Number.NaN;
  if (family === 0 || rest.length > 0 || !(bits <= (family === 4 ? 32 : 128))) {
    throw wrong(variable, `holds ${JSON.stringify(value)}, which is no network such as 10.0.0.0/8`);
  }
  return value;
}

function checkOrigin(variable: string, value: string): string {
  if (value === "*") return value;
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url?.origin === value.replace(/\/$/, "").toLowerCase()) return url.origin;
  throw wrong(variable, `holds ${JSON.stringify(value)}, which is no origin such as https://console.example`);
}

function parseManaged(env: Environment): ManagedNetwork {
  const bridge = read(env, "VOLANT_BRIDGE") ?? DEFAULTS.bridge;
  if (!isLinkName(bridge)) throw wrong("VOLANT_BRIDGE", `is ${JSON.stringify(bridge)}, which is no name for a link`);
  const subnetText = read(env, "VOLANT_SUBNET") ?? DEFAULTS.subnet;
  let subnet: ReturnType<typeof parseSubnet>;
  try {
    subnet = parseSubnet(subnetText);
  } catch (error) {
    throw wrong("VOLANT_SUBNET", `is wrong: ${(error as Error).message}`);
  }
  const hostText = read(env, "VOLANT_HOST_IP") ?? DEFAULTS.hostIp;
  const gateway = parseAddress(hostText);
  if (gateway === undefined) throw wrong("VOLANT_HOST_IP", `is ${JSON.stringify(hostText)}, which is no IPv4 address`);
  if (!isUsable(subnet, gateway)) {
    throw wrong(
      "VOLANT_HOST_IP",
      `is ${hostText}, which the subnet ${subnetText} (VOLANT_SUBNET) has no such host address for`,
    );
  }
  return { bridge, pool: { subnet, gateway } };
}

function parseNameservers(env: Environment): string[] | undefined {
  const servers = list(read(env, "VOLANT_DNS"));
  for (const server of servers) {
    if (parseAddress(server) === undefined) {
      throw wrong("VOLANT_DNS", `holds ${JSON.stringify(server)}, which is no IPv4 address`);
    }
  }
  // resolv.conf(5), MAXNS.
  if (servers.length > 3) throw wrong("VOLANT_DNS", "names more than three servers, and guests ask no more");
  return servers.length === 0 ? undefined : servers;
}

function parseNetwork(env: Environment): Config["network"] {
  const value = read(env, "VOLANT_NETWORK");
  if (value === undefined || value === "bridge" || value === "noop") return value;
  throw wrong("VOLANT_NETWORK", `is ${JSON.stringify(value)}: use bridge or noop`);
}

/**
 * The settings.
 *
 * @param home the user's home folder, for the defaults below it
 * @throws VolantError `invalid`: one line that names the variable
 */
export function parseConfig(env: Environment, home: string): Config {
  const listen = parseListen(read(env, "VOLANT_API_LISTEN") ?? DEFAULTS.apiListen);
  const apiKey = read(env, "VOLANT_API_KEY");
  if (apiKey === undefined && !isLoopback(listen.host)) {
    throw wrong("VOLANT_API_LISTEN", `is ${listen.host}, which others can reach: set VOLANT_API_KEY as well`);
  }
  const state = join(home, ".volant");
  const workDir = read(env, "VOLANT_WORK_DIR") ?? DEFAULTS.workDir;
  return {
    listenHost: listen.host,
    listenPort: listen.port,
    advertise: read(env, "VOLANT_API_ADVERTISE"),
    apiKey,
    allowCidrs: list(read(env, "VOLANT_API_ALLOW_CIDR")).map((value) => checkCidr("VOLANT_API_ALLOW_CIDR", value)),
    corsOrigins: list(read(env, "VOLANT_CORS_ORIGINS")).map((value) => checkOrigin("VOLANT_CORS_ORIGINS", value)),
    managed: parseManaged(env),
    runtimeDir: read(env, "VOLANT_RUNTIME_DIR") ?? join(state, "run"),
    logDir: read(env, "VOLANT_LOG_DIR") ?? join(state, "logs"),
    dbPath: read(env, "VOLANT_DB_PATH") ?? join(state, "state.db"),
    workDir,
    bzImagePath: read(env, "VOLANT_KERNEL_BZIMAGE") ?? join(workDir, "kernel/bzImage"),
    vmlinuxPath: read(env, "VOLANT_KERNEL_VMLINUX") ?? join(workDir, "kernel/vmlinux"),
    hypervisor: read(env, "VOLANT_HYPERVISOR"),
    network: parseNetwork(env),
    nameservers: parseNameservers(env),
  };
}
