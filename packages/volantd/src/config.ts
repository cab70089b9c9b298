/** volantd's settings, all from the environment. Pure: what is wrong is said by the variable's name. */
import { isIP } from "node:net";
import { isAbsolute, join, resolve } from "node:path";
import { DEFAULTS, VolantError } from "@volant/contract";
import { MAX_BRIDGE_PORTS } from "@volant/host";
import { isUsable, parseAddress, parseSubnet } from "./model/address.ts";
import type { ManagedNetwork } from "./model/manifest.ts";
import { isLinkName } from "./model/tap-name.ts";
import { LONGEST_TIMER_MS } from "./model/timer.ts";
import { DEFAULT_EVENTS_KEPT, type EventsKept } from "./store/events.ts";
import type { VsockSetting } from "./runtime/vsock/choice.ts";
import { readTraceSettings, type TraceSettings } from "./telemetry/trace-settings.ts";

export interface Config {
  readonly listenHost: string;
  readonly listenPort: number;
  readonly advertise: string | undefined;
  readonly apiKey: string | undefined;
  /** Others can reach the API: nobody is let in without a key. */
  readonly keyNeeded: boolean;
  /** Undefined: no Unix socket. */
  readonly socketPath: string | undefined;
  readonly tls: { readonly certPath: string; readonly keyPath: string } | undefined;
  readonly trustedProxies: readonly string[];
  /** Requests per second of one client; undefined: any number. */
  readonly ratePerSecond: number | undefined;
  /** The audit log is two files of about this size; undefined for the default. */
  readonly auditFileBytes: number | undefined;
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
  /** Whether guests are held to their addresses where neither the VM nor its manifest says so. */
  readonly antiSpoof: boolean;
  /** Bridges that VMs in mode `dhcp` may join, besides those that set-up recorded. */
  readonly lanBridges: readonly string[];
  /** Whether data goes into guests over a vsock device of theirs. */
  readonly vsock: VsockSetting;
  /** Name servers of guests; undefined takes the host's upstreams. */
  readonly nameservers: readonly string[] | undefined;
  /** How many ports a bridge is given before taps go to a further one; undefined: all that Linux allows. */
  readonly bridgePorts: number | undefined;
  /** How long a start may take before the VM says that it does. */
  readonly startTimeoutMs: number | undefined;
  /** How long the agent of a VM with a restart policy may be silent before it is started again; 0: for ever. */
  readonly hangTimeoutMs: number | undefined;
  /** How long a guest's agent gets to end it when it is stopped. */
  readonly stopTimeoutMs: number | undefined;
  /** A VM that has been well for so long after failures is as one that never failed. */
  readonly restartResetMs: number | undefined;
  /** How many events are kept, and for how long. */
  readonly eventsKept: EventsKept;
  /** A workload's log is two files of about this size; undefined for the default. */
  readonly logFileBytes: number | undefined;
  /** Where traces are sent to; undefined: nowhere. */
  readonly traces: TraceSettings | undefined;
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

function parseLanBridges(env: Environment): string[] {
  const names = list(read(env, "VOLANT_LAN_BRIDGES"));
  for (const name of names) {
    if (!isLinkName(name)) {
      throw wrong("VOLANT_LAN_BRIDGES", `holds ${JSON.stringify(name)}, which is no name for a link`);
    }
  }
  return names;
}

function parseNetwork(env: Environment): Config["network"] {
  const value = read(env, "VOLANT_NETWORK");
  if (value === undefined || value === "bridge" || value === "noop") return value;
  throw wrong("VOLANT_NETWORK", `is ${JSON.stringify(value)}: use bridge or noop`);
}

/** Milliseconds of at least `least`. */
function parseTimeout(env: Environment, variable: string, least: 0 | 1, example: number): number | undefined {
  const value = read(env, variable);
  if (value === undefined) return undefined;
  const ms = /^(?:0|[1-9]\d{0,9})$/.test(value) ? Number(value) : Number.NaN;
  if (ms >= least && ms <= LONGEST_TIMER_MS) return ms;
  throw wrong(variable, `is ${JSON.stringify(value)}, which is no number of milliseconds such as ${example}`);
}

/** Below this, the ports that are kept for trunks leave none for taps. */
const FEWEST_BRIDGE_PORTS = 4;

function parseBridgePorts(env: Environment): number | undefined {
  const value = read(env, "VOLANT_BRIDGE_PORTS");
  if (value === undefined) return undefined;
  const ports = /^\d{1,4}$/.test(value) ? Number(value) : 0;
  if (ports >= FEWEST_BRIDGE_PORTS && ports <= MAX_BRIDGE_PORTS) return ports;
  const range = `${FEWEST_BRIDGE_PORTS} to ${MAX_BRIDGE_PORTS}`;
  throw wrong("VOLANT_BRIDGE_PORTS", `is ${JSON.stringify(value)}, which is no number of ports from ${range}`);
}

const MS_PER_DAY = 24 * 60 * 60 * 1000;

/** A whole number from 1 on. */
function count(env: Environment, variable: string, { most, what }: { most: number; what: string }): number | undefined {
  const value = read(env, variable);
  if (value === undefined) return undefined;
  if (/^[1-9]\d{0,9}$/.test(value) && Number(value) <= most) return Number(value);
  throw wrong(variable, `is ${JSON.stringify(value)}, which is no number of ${what} from 1 to ${most}`);
}

function parseEventsKept(env: Environment): EventsKept {
  const days = count(env, "VOLANT_EVENTS_KEEP_DAYS", { most: 36_500, what: "days" });
  return {
    count: count(env, "VOLANT_EVENTS_KEEP", { most: 10_000_000, what: "events" }) ?? DEFAULT_EVENTS_KEPT.count,
    ageMs: days === undefined ? DEFAULT_EVENTS_KEPT.ageMs : days * MS_PER_DAY,
  };
}

function parseLogFileBytes(env: Environment): number | undefined {
  const kib = count(env, "VOLANT_LOG_FILE_KIB", { most: 1_048_576, what: "KiB" });
  return kib === undefined ? undefined : kib * 1024;
}

function parseAntiSpoof(env: Environment): boolean {
  const value = read(env, "VOLANT_ANTI_SPOOF") ?? "on";
  if (value === "on" || value === "off") return value === "on";
  throw wrong("VOLANT_ANTI_SPOOF", `is ${JSON.stringify(value)}: use on or off`);
}

function parseVsock(env: Environment): VsockSetting {
  const wanted = read(env, "VOLANT_VSOCK") ?? "off";
  if (wanted !== "off" && wanted !== "auto" && wanted !== "on") {
    throw wrong("VOLANT_VSOCK", `is ${JSON.stringify(wanted)}: use off, auto or on`);
  }
  return { wanted, program: read(env, "VOLANT_VHOST_DEVICE_VSOCK") };
}

/** What has to be written to let others in without a key: nobody does it by mistake. */
const ALLOW_ANYONE = "allow-anyone";

function parseInsecure(env: Environment): boolean {
  const value = read(env, "VOLANT_API_INSECURE");
  if (value === undefined || value === ALLOW_ANYONE) return value !== undefined;
  throw wrong(
    "VOLANT_API_INSECURE",
    `is ${JSON.stringify(value)}: ${ALLOW_ANYONE} lets everyone who reaches the API control this host`,
  );
}

function parseTls(env: Environment): Config["tls"] {
  const [certPath, keyPath] = [read(env, "VOLANT_TLS_CERT"), read(env, "VOLANT_TLS_KEY")];
  if (certPath !== undefined && keyPath !== undefined) return { certPath, keyPath };
  if (certPath !== undefined) throw wrong("VOLANT_TLS_CERT", "is set and VOLANT_TLS_KEY is not: TLS needs both");
  if (keyPath !== undefined) throw wrong("VOLANT_TLS_KEY", "is set and VOLANT_TLS_CERT is not: TLS needs both");
  return undefined;
}

/** More than any program asks for by itself, and less than keeps volantd from its work. */
const DEFAULT_RATE_PER_SECOND = 1000;

function parseRate(env: Environment): number | undefined {
  if (read(env, "VOLANT_API_RATE") === "off") return undefined;
  const what = "requests a second, or off: a number";
  return count(env, "VOLANT_API_RATE", { most: 1_000_000, what }) ?? DEFAULT_RATE_PER_SECOND;
}

function parseSocketPath(env: Environment, runtimeDir: string): string | undefined {
  const value = read(env, "VOLANT_API_SOCKET");
  if (value === "off") return undefined;
  if (value !== undefined && !isAbsolute(value)) {
    throw wrong("VOLANT_API_SOCKET", `is ${JSON.stringify(value)}: use an absolute path, or off`);
  }
  return value ?? resolve(runtimeDir, DEFAULTS.socketName);
}

function cidrs(env: Environment, variable: string): string[] {
  return list(read(env, variable)).map((value) => checkCidr(variable, value));
}

/**
 * Whether there is a key where one is needed.
 *
 * @param keyCount how many keys were made
 * @throws VolantError `invalid` where there is none
 */
export function checkKeys({ keyNeeded, apiKey, listenHost, trustedProxies }: Config, keyCount: number): void {
  if (!keyNeeded || apiKey !== undefined || keyCount > 0) return;
  const [variable, problem] = isLoopback(listenHost)
    ? ["VOLANT_TRUSTED_PROXIES", `is ${trustedProxies.join(",")}, by which others can reach the API`]
    : ["VOLANT_API_LISTEN", `is ${listenHost}, which others can reach`];
  throw new VolantError("invalid", `${variable} ${problem}, and there is no API key: set VOLANT_API_KEY as well`, {
    hint: `or make a key first, over the Unix socket: volar keys create <name> --scope admin. VOLANT_API_INSECURE=${ALLOW_ANYONE} does without`,
  });
}

/**
 * The settings.
 *
 * @param home the user's home folder, for the defaults below it
 * @throws VolantError `invalid`: one line that names the variable
 */
export function parseConfig(env: Environment, home: string): Config {
  const listen = parseListen(read(env, "VOLANT_API_LISTEN") ?? DEFAULTS.apiListen);
  const trustedProxies = cidrs(env, "VOLANT_TRUSTED_PROXIES");
  const auditKib = count(env, "VOLANT_AUDIT_FILE_KIB", { most: 1_048_576, what: "KiB" });
  const state = join(home, ".volant");
  const runtimeDir = read(env, "VOLANT_RUNTIME_DIR") ?? join(state, "run");
  const workDir = read(env, "VOLANT_WORK_DIR") ?? DEFAULTS.workDir;
  return {
    listenHost: listen.host,
    listenPort: listen.port,
    advertise: read(env, "VOLANT_API_ADVERTISE"),
    apiKey: read(env, "VOLANT_API_KEY"),
    keyNeeded: !parseInsecure(env) && (!isLoopback(listen.host) || trustedProxies.length > 0),
    socketPath: parseSocketPath(env, runtimeDir),
    tls: parseTls(env),
    trustedProxies,
    ratePerSecond: parseRate(env),
    auditFileBytes: auditKib === undefined ? undefined : auditKib * 1024,
    allowCidrs: cidrs(env, "VOLANT_API_ALLOW_CIDR"),
    corsOrigins: list(read(env, "VOLANT_CORS_ORIGINS")).map((value) => checkOrigin("VOLANT_CORS_ORIGINS", value)),
    managed: parseManaged(env),
    runtimeDir,
    logDir: read(env, "VOLANT_LOG_DIR") ?? join(state, "logs"),
    dbPath: read(env, "VOLANT_DB_PATH") ?? join(state, "state.db"),
    workDir,
    bzImagePath: read(env, "VOLANT_KERNEL_BZIMAGE") ?? join(workDir, "kernel/bzImage"),
    vmlinuxPath: read(env, "VOLANT_KERNEL_VMLINUX") ?? join(workDir, "kernel/vmlinux"),
    hypervisor: read(env, "VOLANT_HYPERVISOR"),
    network: parseNetwork(env),
    antiSpoof: parseAntiSpoof(env),
    lanBridges: parseLanBridges(env),
    vsock: parseVsock(env),
    nameservers: parseNameservers(env),
    startTimeoutMs: parseTimeout(env, "VOLANT_START_TIMEOUT_MS", 1, 60_000),
    hangTimeoutMs: parseTimeout(env, "VOLANT_HANG_TIMEOUT_MS", 0, 30_000),
    stopTimeoutMs: parseTimeout(env, "VOLANT_STOP_TIMEOUT_MS", 1, 10_000),
    restartResetMs: parseTimeout(env, "VOLANT_RESTART_RESET_MS", 1, 60_000),
    bridgePorts: parseBridgePorts(env),
    eventsKept: parseEventsKept(env),
    logFileBytes: parseLogFileBytes(env),
    traces: readTraceSettings(env),
  };
}
