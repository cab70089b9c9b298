/**
 * Makes sure of what a command needs, and says what it does: one line for each thing that was missing. Runs on any Node from 18 on,
 * before npm's dependencies are there, so it is plain JavaScript and imports nothing but Node.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { delimiter, join } from "node:path";

export const root = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "..");

/** Where the toolchain's Node comes from when the machine's is not one of `engines`. */
const NODE_VERSION = "24.21.0";
const toolchainNode = join(root, ".toolchain/node/node_modules", `node-linux-${process.arch}`, "bin/node");

/** Volant's downloads and builds for this checkout. */
export const cacheDir = join(root, ".cache");

/** A failure that the user can understand and mend. */
export class SetUpError extends Error {}

/** @param {string} text */
const say = (text) => process.stderr.write(`volant: ${text}\n`);

/** @param {string} version */
function isNodeSupported(version) {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return (major === 24 && minor >= 15) || major === 25 || major === 26;
}

/** Path of a program on PATH, or of Debian's sbin, where a user's PATH may lack it. @param {string} program */
function findProgram(program) {
  for (const dir of [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"]) {
    const path = join(dir, program);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here: the next directory may have it.
    }
  }
  return undefined;
}

/**
 * Runs a program, quietly: its output is shown only when it fails.
 * @param {string} what the step, for the error
 * @param {string} program
 * @param {string[]} args
 * @param {{cwd?: string, env?: NodeJS.ProcessEnv, hint?: string}} [options]
 */
function run(what, program, args, options = {}) {
  const result = spawnSync(program, args, {
    cwd: options.cwd ?? root,
    env: options.env ?? process.env,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (result.error !== undefined) throw new SetUpError(`${what}: ${program} can't be run (${result.error.message})`);
  if (result.status === 0) return result.stdout;
  const tail = `${result.stdout}\n${result.stderr}`.trim().split("\n").slice(-15).join("\n");
  throw new SetUpError(`${what} failed${options.hint === undefined ? "" : `: ${options.hint}`}\n${tail}`);
}

/**
 * @param {string} title
 * @param {() => void} work
 */
function step(title, work) {
  const started = Date.now();
  say(`${title} …`);
  work();
  say(`${title}: done in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}

/** The Node to run Volant with: this one, or the checkout's own, brought when neither fits. */
function prepareNode() {
  if (isNodeSupported(process.versions.node)) return process.execPath;
  if (existsSync(toolchainNode)) return toolchainNode;
  step(`Node ${NODE_VERSION}, since ${process.versions.node} is too old`, () => {
    const prefix = join(root, ".toolchain/node");
    mkdirSync(prefix, { recursive: true });
    writeFileSync(join(prefix, "package.json"), '{"private":true}\n');
    run(
      "bringing Node",
      "npm",
      [
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
        prefix,
        `node-linux-${process.arch}@${NODE_VERSION}`,
      ],
      {
        cwd: prefix,
        hint: "is the network there?",
      },
    );
  });
  return toolchainNode;
}

function prepareDependencies() {
  const marker = join(root, "node_modules/.volant-lock");
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  if (existsSync(marker) && readFileSync(marker, "utf8") === lock) return;
  step("npm dependencies", () => {
    // No package here needs an install script: koffi ships its binaries as packages of their own.
    // `npm ci` removes what is there before it fetches: without a network that would leave nothing.
    const verb = existsSync(join(root, "node_modules")) ? ["install", "--no-save"] : ["ci"];
    run("installing npm dependencies", "npm", [...verb, "--ignore-scripts", "--no-audit", "--no-fund"], {
      hint: "is the network there?",
    });
    writeFileSync(marker, lock);
  });
}

/**
 * Whether a program needs no dynamic loader, so that it runs in a guest that has no libraries: an ELF file without a
 * program header of type PT_INTERP (elf(5)). Anything but a little-endian 64-bit ELF file counts as not static.
 * @param {string} path
 */
function isStatic(path) {
  const file = readFileSync(path);
  if (file.length < 64 || file.readUInt32BE(0) !== 0x7f454c46 || file[4] !== 2 || file[5] !== 1) return false;
  const offset = Number(file.readBigUInt64LE(32));
  const entrySize = file.readUInt16LE(54);
  const count = file.readUInt16LE(56);
  return Array.from({ length: count }, (_, index) => file.readUInt32LE(offset + index * entrySize)).every(
    (type) => type !== 3,
  );
}

/**
 * Debian packages that are not there yet, found by the programs that they bring.
 * @param {Record<string, string>} wanted program → package
 */
function missingPackages(wanted) {
  const missing = Object.entries(wanted).filter(([program]) => {
    const path = findProgram(program);
    return path === undefined || (program === "busybox" && !isStatic(path));
  });
  return [...new Set(missing.map(([, name]) => name))];
}

/** @param {Record<string, string>} wanted */
function prepareDebianPackages(wanted) {
  const missing = missingPackages(wanted);
  if (missing.length === 0) return;
  const command = `apt-get install --no-install-recommends ${missing.join(" ")}`;
  if (findProgram("apt-get") === undefined)
    throw new SetUpError(`these are missing, and there is no apt-get here to install them: ${missing.join(", ")}`);
  if (process.getuid?.() !== 0)
    throw new SetUpError(`these Debian packages are missing, and only root can install them: run '${command}' as root`);
  step(`Debian packages: ${missing.join(", ")}`, () => {
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    const options = { env, hint: "is the network there?" };
    run("reading Debian's package lists", "apt-get", ["update", "-q"], options);
    run(
      "installing Debian packages",
      "apt-get",
      ["install", "-q", "-y", "--no-install-recommends", ...missing],
      options,
    );
  });
}

/**
 * @param {string} path
 * @returns {number} milliseconds since the epoch
 */
function newestChange(path) {
  const info = statSync(path);
  if (!info.isDirectory()) return info.mtimeMs;
  return readdirSync(path).reduce((newest, name) => Math.max(newest, newestChange(join(path, name))), 0);
}

/**
 * Builds one of the Rust programs, unless its binary is newer than all that it is made of.
 * @param {string} title
 * @param {string} dir its own folder, from the root
 * @param {string} program
 * @param {string[]} sources from the root
 */
function prepareRustProgram(title, dir, program, sources) {
  const binary = join(root, "kestrel/target/x86_64-unknown-linux-gnu/release", program);
  const present = sources.map((name) => join(root, name)).filter((path) => existsSync(path));
  if (existsSync(binary) && present.every((path) => newestChange(path) <= statSync(binary).mtimeMs)) return;
  if (findProgram("cargo") === undefined)
    throw new SetUpError(
      `${title} is built with Rust, and cargo is not on PATH: install Rust (rustup or Debian's 'cargo' package)`,
    );
  step(`${title} (cargo build)`, () => {
    run(`building ${title}`, "cargo", ["build", "--release", "--locked", "--quiet"], { cwd: join(root, dir) });
    // cargo leaves an unchanged binary's time alone; the next run compares with it.
    execFileSync("touch", [binary]);
  });
}

/** @param {string} dir */
const rustSources = (dir) => ["src", "Cargo.toml", "Cargo.lock", ".cargo"].map((name) => `${dir}/${name}`);

function prepareAgent() {
  prepareRustProgram("the guest agent", "kestrel", "kestrel", rustSources("kestrel"));
  // Made by the same build.
  prepareRustProgram("what confines hypervisors", "kestrel", "volant-confine", rustSources("kestrel"));
}

/** What stands in for QEMU where a test needs many VMs. It shares kestrel's link and build folder. */
function prepareStandIn() {
  const sources = [...rustSources("test/stand-in"), ...rustSources("kestrel")];
  prepareRustProgram("the stand-in hypervisor", "test/stand-in", "volant-stand-in", sources);
}

/** @param {string} node */
function prepareKernel(node) {
  if (existsSync(join(cacheDir, "volant/kernel/kernel.json"))) return;
  step("a guest kernel from Debian's package", () => {
    run("installing a guest kernel", node, [
      join(root, "packages/volar/src/main.ts"),
      "kernel",
      "install",
      "--work-dir",
      join(cacheDir, "volant"),
    ]);
  });
}

function prepareExample() {
  const image = join(root, "examples/hello/build/hello.cpio");
  const sources = ["rootfs", "build.sh"].map((name) => join(root, "examples/hello", name));
  if (existsSync(image) && sources.every((path) => newestChange(path) <= statSync(image).mtimeMs)) return;
  step("the hello plugin's image", () => {
    run("building the hello plugin's image", "sh", [join(root, "examples/hello/build.sh")]);
  });
}

/** Serves vsock devices of VMs (VOLANT_VSOCK). */
const VSOCK_BACKEND = "vhost-device-vsock";
const VSOCK_BACKEND_VERSION = "0.3.0";
export const vsockBackend = join(root, ".toolchain", VSOCK_BACKEND, "bin", VSOCK_BACKEND);

function prepareVsockBackend() {
  if (existsSync(vsockBackend)) return;
  step(`${VSOCK_BACKEND} ${VSOCK_BACKEND_VERSION} (cargo install)`, () => {
    const prefix = join(root, ".toolchain", VSOCK_BACKEND);
    const args = [
      "install",
      "--quiet",
      "--locked",
      "--version",
      VSOCK_BACKEND_VERSION,
      "--root",
      prefix,
      VSOCK_BACKEND,
    ];
    run(`building ${VSOCK_BACKEND}`, "cargo", args, { hint: "is the network there?" });
  });
}

/** What boots a VM. */
const RUN_PACKAGES = {
  "qemu-system-x86_64": "qemu-system-x86",
  busybox: "busybox-static",
  iptables: "iptables",
  nft: "nftables",
  cc: "gcc",
};
/** What the tests hold it against. */
const TEST_PACKAGES = {
  ...RUN_PACKAGES,
  ip: "iproute2",
  dnsmasq: "dnsmasq-base",
  "kea-dhcp4": "kea-dhcp4-server",
  unshare: "util-linux",
  setpriv: "util-linux",
  sysctl: "procps",
  "systemd-analyze": "systemd",
  openssl: "openssl",
  curl: "curl",
};

/**
 * What the browser tests drive: Debian's Chromium, or the program that VOLANT_CHROMIUM names. Only they need it, so where it can't be had the others run, and
 * the browser tests fail and say so.
 */
function prepareBrowser() {
  if ((process.env["VOLANT_CHROMIUM"] ?? "") !== "") return;
  try {
    prepareDebianPackages({ chromium: "chromium" });
  } catch (error) {
    if (!(error instanceof SetUpError)) throw error;
    say(`${error.message}\nvolant: without Chromium the browser tests fail; VOLANT_CHROMIUM can name another one`);
  }
}

/**
 * @param {"sources" | "agent" | "run" | "test"} extent `sources`: enough to read and check the code; `agent`: the guest's agent, too; `run`: to boot VMs; `test`: to prove it all
 * @returns {string} the Node to go on with
 */
export function prepare(extent) {
  if (process.platform !== "linux") throw new SetUpError(`VMs need Linux, and this is ${process.platform}`);
  const started = Date.now();
  const node = prepareNode();
  prepareDependencies();
  if (extent === "agent") prepareAgent();
  if (extent === "run" || extent === "test") {
    if (process.getuid?.() !== 0)
      throw new SetUpError("bridges, taps and firewall rules need root: run this as root (sudo npm …)");
    prepareDebianPackages(extent === "test" ? TEST_PACKAGES : RUN_PACKAGES);
    prepareAgent();
    if (extent === "test") {
      prepareBrowser();
      prepareStandIn();
    }
    prepareKernel(node);
    prepareExample();
    if (extent === "test" || (process.env["VOLANT_VSOCK"] ?? "off") !== "off") prepareVsockBackend();
  }
  const seconds = (Date.now() - started) / 1000;
  if (seconds > 2) say(`set-up took ${seconds.toFixed(0)} s`);
  return node;
}
