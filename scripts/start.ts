/**
 * `npm start`: the main job from end to end, with the commands that a user would type. Sets the host up, runs volantd, installs the hello
 * plugin, makes one VM and shows its page; at Ctrl-C (or at once with --once) takes all of it down again.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs, promisify } from "node:util";
import { Netlink } from "@volant/netlink";

const root = join(import.meta.dirname, "..");
const workDir = join(root, ".cache/volant");
/** Short, since a Unix socket's path holds at most 107 bytes (unix(7)), and one for each checkout. */
const stateDir = `/run/volant-start-${createHash("sha256").update(root).digest("hex").slice(0, 8)}`;
const vmName = "hello";

/** What every program below is told: this checkout's own state, and the user's settings where there are any. */
const environment: NodeJS.ProcessEnv = {
  VOLANT_RUNTIME_DIR: join(stateDir, "run"),
  VOLANT_LOG_DIR: join(stateDir, "logs"),
  VOLANT_DB_PATH: join(stateDir, "state.db"),
  VOLANT_WORK_DIR: workDir,
  ...process.env,
};
// Set-up has brought it where the setting asks for it.
if ((environment["VOLANT_VSOCK"] ?? "off") !== "off") {
  environment["VOLANT_VHOST_DEVICE_VSOCK"] ??= join(root, ".toolchain/vhost-device-vsock/bin/vhost-device-vsock");
}
if (environment["VOLANT_API_LISTEN"] !== undefined)
  environment["VOLANT_API_BASE"] ??= `http://${environment["VOLANT_API_LISTEN"]}`;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const execute = promisify(execFile);

/** Runs `volar` and gives its standard output. Its progress and errors go to the terminal. */
async function volar(...args: string[]): Promise<string> {
  say(`$ volar ${args.join(" ")}`);
  const child = execute(join(root, "bin/volar"), args, { env: environment });
  child.child.stderr?.pipe(process.stderr, { end: false });
  return (await child).stdout;
}

/** Deletes every deployment, VM and plugin of this state folder's, whoever made them. */
async function deleteAll(): Promise<void> {
  const deployments = JSON.parse(await volar("deployments", "list", "--output", "json")) as { readonly name: string }[];
  if (deployments.length > 0) await volar("deployments", "delete", ...deployments.map(({ name }) => name));
  const vms = JSON.parse(await volar("vms", "list", "--output", "json")) as { readonly name: string }[];
  if (vms.length > 0) await volar("vms", "delete", ...vms.map(({ name }) => name));
  const plugins = JSON.parse(await volar("plugins", "list", "--output", "json")) as { readonly name: string }[];
  for (const { name } of plugins) await volar("plugins", "remove", name);
}

/** Starts volantd in a process group of its own, so that a terminal's Ctrl-C reaches this program first. Resolves when it is ready. */
async function startVolantd(): Promise<ChildProcess> {
  say("$ volantd");
  const child = spawn(join(root, "bin/volantd"), [], {
    env: environment,
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`volantd ended with exit code ${code}`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      say(line);
      if (line.startsWith("volantd: listening on ")) resolve();
    });
  });
  return child;
}

async function stopVolantd(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await ended;
}

/** A bare network namespace (`unshare -n`) starts with its loopback link down, and then nothing answers on 127.0.0.1. */
async function raiseLoopback(): Promise<void> {
  const netlink = await Netlink.open();
  try {
    const loopback = await netlink.links.get("lo");
    if (loopback?.flags.up !== false) return;
    await netlink.links.set("lo", { up: true });
    undo.push(lowerLoopback);
  } finally {
    await netlink.close();
  }
}

async function lowerLoopback(): Promise<void> {
  const netlink = await Netlink.open();
  try {
    await netlink.links.set("lo", { up: false });
  } finally {
    await netlink.close();
  }
}

/** What has been done, newest last, as the actions that undo it. */
const undo: (() => Promise<unknown>)[] = [];

/** Undoes everything, newest first; one failure does not keep the rest from being undone. */
async function undoAll(): Promise<boolean> {
  let clean = true;
  for (const action of undo.splice(0).reverse()) {
    try {
      await action();
    } catch (error) {
      clean = false;
      process.stderr.write(`volant: ${error instanceof Error ? error.message : String(error)}\n`);
    }
  }
  return clean;
}

/** The signal that ends the program, once it came. */
function nextSignal(): { readonly came: Promise<string>; readonly seen: () => boolean } {
  let seen = false;
  const came = new Promise<string>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.on(signal, () => {
        if (seen) say("already on the way down: please wait");
        seen = true;
        resolve(signal);
      });
    }
  });
  return { came, seen: () => seen };
}

interface VmSummary {
  readonly ip_address: string;
}

async function bringUp(interrupted: () => boolean): Promise<void> {
  const steps: (() => Promise<void>)[] = [
    raiseLoopback,
    async () => {
      mkdirSync(stateDir, { recursive: true, mode: 0o700 });
      undo.push(async () => rmSync(stateDir, { recursive: true, force: true }));
      // Undone even when it fails half-way: it records each change before it makes it.
      undo.push(() => volar("setup", "--undo"));
      process.stdout.write(await volar("setup", "--service-file", ""));
    },
    async () => {
      const volantd = await startVolantd();
      undo.push(() => stopVolantd(volantd));
      undo.push(deleteAll);
      // An earlier run that was killed may have left its VM; it is adopted by now, and goes.
      await deleteAll();
    },
    async () => {
      await volar("plugins", "install", "--replace", join(root, "examples/hello/manifest.json"));
    },
    async () => {
      const started = performance.now();
      const vm = JSON.parse(
        await volar("vms", "create", vmName, "--plugin", "hello", "--wait", "--output", "json"),
      ) as VmSummary;
      const url = `http://${vm.ip_address}/`;
      const page = await (await fetch(url)).text();
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      say(`\n${page}`);
      say(`That page came from the VM "${vmName}" at ${url}, ${seconds} s after it was asked for.`);
    },
  ];
  for (const step of steps) {
    if (interrupted()) return;
    await step();
  }
}

const { values } = parseArgs({ options: { once: { type: "boolean", default: false } } });
const signal = nextSignal();
let failed = false;
try {
  await bringUp(signal.seen);
  if (!values.once && !signal.seen()) {
    say("Try: bin/volar vms list, or open the page in a browser. Ctrl-C stops the VM and undoes everything.");
    await signal.came;
  }
} catch (error) {
  failed = true;
  process.stderr.write(`volant: ${error instanceof Error ? error.message : String(error)}\n`);
}
say("Taking everything down again.");
const clean = await undoAll();
process.exit(failed || !clean ? 1 : 0);
