/** The program: arguments, signals, exit codes. 0 stopped in order, 1 could not start or failed, 2 wrong usage or settings. */
import { homedir } from "node:os";
import { parseArgs } from "node:util";
import { VOLANT_VERSION, VolantError } from "@volant/contract";
import { openVolantd } from "./compose.ts";
import { parseConfig } from "./config.ts";
import { Log } from "./log.ts";

const HELP = `Usage: volantd [--version] [--help]

The Volant control plane. All its settings come from the environment: VOLANT_API_LISTEN, VOLANT_API_SOCKET, VOLANT_API_ADVERTISE,
VOLANT_API_KEY, VOLANT_API_INSECURE, VOLANT_TLS_CERT, VOLANT_TLS_KEY, VOLANT_API_ALLOW_CIDR, VOLANT_TRUSTED_PROXIES,
VOLANT_API_RATE, VOLANT_AUDIT_FILE_KIB, VOLANT_CORS_ORIGINS, VOLANT_BRIDGE, VOLANT_SUBNET, VOLANT_HOST_IP, VOLANT_RUNTIME_DIR, VOLANT_LOG_DIR,
VOLANT_DB_PATH, VOLANT_WORK_DIR, VOLANT_KERNEL_BZIMAGE, VOLANT_KERNEL_VMLINUX, VOLANT_HYPERVISOR, VOLANT_NETWORK, VOLANT_DNS,
VOLANT_START_TIMEOUT_MS, VOLANT_STOP_TIMEOUT_MS, VOLANT_HANG_TIMEOUT_MS, VOLANT_RESTART_RESET_MS, VOLANT_BRIDGE_PORTS.

It stays in the foreground, prints "volantd: listening on <url>" on standard output once it is ready, and logs to standard
error. SIGINT and SIGTERM stop it; virtual machines go on, and are found again at the next start.
`;

function complain(error: VolantError): void {
  process.stderr.write(`volantd: ${error.message}\n${error.hint === undefined ? "" : `  hint: ${error.hint}\n`}`);
}

function readFlags(): { readonly version: boolean; readonly help: boolean } {
  try {
    const options = {
      version: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    } as const;
    return parseArgs({ options, allowPositionals: false }).values;
  } catch (error) {
    throw new VolantError("invalid", (error as Error).message, { hint: "volantd --help", cause: error });
  }
}

/** The first of the signals that end volantd. Later ones change nothing: it is on its way. */
function signalled(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, resolve);
  });
}

async function main(): Promise<number> {
  const flags = readFlags();
  if (flags.help) process.stdout.write(HELP);
  else if (flags.version) process.stdout.write(`volantd ${VOLANT_VERSION}\n`);
  if (flags.help || flags.version) return 0;
  const log = new Log(
    (line) => process.stderr.write(line),
    () => new Date(),
  );
  const config = parseConfig(process.env, homedir());
  const stop = signalled();
  const volantd = await openVolantd(config, log);
  process.stdout.write(`volantd: listening on ${volantd.address}\n`);
  const signal = await stop;
  log.info({ signal }, "stopping; virtual machines go on");
  await volantd.close();
  return 0;
}

// A reader of our output that went away must not end us.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof VolantError)) throw error;
  complain(error);
  process.exitCode = error.code === "invalid" ? 2 : 1;
}
