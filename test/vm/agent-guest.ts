/**
 * A guest with the real agent under a real QEMU, and nothing else of Volant: for tests of the agent and of the link to it. Its initramfs holds
 * the agent, the drivers, and a busybox for workloads.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { chooseMachine, kernelCmdline } from "../../packages/volantd/src/runtime/qemu/argv.ts";
import { within } from "../patience.ts";

const root = join(import.meta.dirname, "../..");
const agentBinary = join(root, "kestrel/target/x86_64-unknown-linux-gnu/release/kestrel");
const kernelFolder = join(root, ".cache/volant/kernel");
const busybox = "/bin/busybox";
const drivers = ["virtio_pci", "virtio_net", "virtio_console", "evdev", "button"];

interface KernelRecord {
  readonly modules: readonly { readonly name: string; readonly file: string; readonly depends: readonly string[] }[];
}

/** A file, a directory (no content) or a link of the archive. */
interface Entry {
  readonly path: string;
  readonly mode: number;
  readonly content?: Uint8Array;
}

/** Packs entries as the kernel expects them: Documentation/driver-api/early-userspace/buffer-format.rst, "newc". */
function packArchive(entries: readonly Entry[]): Buffer {
  const parts: Buffer[] = [];
  const pad = (length: number) => Buffer.alloc((4 - (length % 4)) % 4);
  for (const [index, { path, mode, content = Buffer.alloc(0) }] of [
    ...entries,
    { path: "TRAILER!!!", mode: 0 },
  ].entries()) {
    const name = Buffer.from(`${path}\0`);
    const fields = [index + 1, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
    const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`);
    parts.push(header, name, pad(header.length + name.length), Buffer.from(content), pad(content.length));
  }
  return Buffer.concat(parts);
}

/** Drivers in an order in which each comes after what it needs. */
function driverEntries(): Entry[] {
  const record = JSON.parse(readFileSync(join(kernelFolder, "kernel.json"), "utf8")) as KernelRecord;
  const needed = new Set(drivers);
  for (const name of needed) {
    record.modules.find((module) => module.name === name)?.depends.forEach((dependency) => needed.add(dependency));
  }
  return record.modules
    .filter((module) => needed.has(module.name))
    .map(({ file }) => ({
      path: `.volant/modules/${basename(file)}`,
      mode: 0o100644,
      content: readFileSync(join(kernelFolder, file)),
    }));
}

function initramfs(extra: readonly Entry[]): Buffer {
  const directories = ["dev", "proc", "sys", "run", "tmp", ".volant", ".volant/modules", "bin"];
  return packArchive([
    ...directories.map((path) => ({ path, mode: 0o40755 })),
    { path: ".volant/init", mode: 0o100755, content: readFileSync(agentBinary) },
    ...driverEntries(),
    { path: "bin/busybox", mode: 0o100755, content: readFileSync(busybox) },
    { path: "bin/sh", mode: 0o120777, content: Buffer.from("busybox") },
    ...extra,
  ]);
}

/** What a guest is told it need not measure, which goes wrong on a busy host. os.cpus() says 0 where cpufreq is missing. */
function tscKhz(): number {
  const mhz = /^cpu MHz\s*: ([\d.]+)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
  assert.ok(mhz !== undefined, "/proc/cpuinfo says the processor's rate");
  return Math.round(Number(mhz) * 1000);
}

export interface AgentGuestOptions {
  /** Words for the kernel's command line. */
  readonly append?: string;
  readonly extraFiles?: readonly Entry[];
  /** QEMU arguments of a network card; without them the guest has none. */
  readonly network?: readonly string[];
  /** QEMU's clock for the guest: a start time, or the present. */
  readonly rtcBase?: string;
}

/** One virtual machine. Close it, whatever happens: that ends QEMU and removes its folder. */
export class AgentGuest {
  readonly directory: string;
  readonly controlPath: string;
  readonly streamPath: string;
  #process: ChildProcess;
  #exited: Promise<number | null>;
  #console = "";
  #listeners = new Set<() => void>();

  constructor(options: AgentGuestOptions = {}) {
    assert.ok(existsSync(agentBinary), "the agent is built; npm test does that first");
    assert.ok(
      existsSync(join(kernelFolder, "vmlinux")),
      "a kernel is installed for the tests; npm test does that first",
    );
    this.directory = mkdtempSync(join(tmpdir(), "agent-guest-"));
    this.controlPath = join(this.directory, "control");
    this.streamPath = join(this.directory, "stream");
    writeFileSync(join(this.directory, "initramfs"), initramfs(options.extraFiles ?? []));
    const machine = chooseMachine("tcg");
    const cmdline = kernelCmdline({ accelerator: "tcg", machine, tscKhz: tscKhz() }, options.append ?? "");
    // prettier-ignore
    this.#process = spawn("qemu-system-x86_64", [
      "-accel", "tcg", "-M", machine, "-cpu", "max", "-m", "160", "-smp", "1", "-nodefaults", "-no-user-config",
      "-display", "none", "-no-reboot", "-serial", "stdio", "-rtc", `base=${options.rtcBase ?? "utc"}`,
      "-kernel", join(kernelFolder, "vmlinux"), "-initrd", join(this.directory, "initramfs"),
      "-append", cmdline, ...(options.network ?? []),
      "-device", "virtio-serial-pci",
      "-chardev", `socket,id=control,path=${this.controlPath},server=on,wait=off`,
      "-device", "virtserialport,chardev=control,name=volant.control",
      "-chardev", `socket,id=stream,path=${this.streamPath},server=on,wait=off`,
      "-device", "virtserialport,chardev=stream,name=volant.stream",
      "-qmp", `unix:${join(this.directory, "qmp")},server=on,wait=off`,
    ], { stdio: ["ignore", "pipe", "pipe"] });
    const collect = (text: string) => {
      this.#console += text;
      for (const listener of this.#listeners) listener();
    };
    this.#process.stdout?.setEncoding("utf8").on("data", collect);
    this.#process.stderr?.setEncoding("utf8").on("data", collect);
    this.#exited = new Promise((resolve) => {
      this.#process.once("error", () => resolve(null));
      this.#process.once("close", (code) => resolve(code));
    });
  }

  /** Everything on the serial console so far. */
  get console(): string {
    return this.#console;
  }

  /** QEMU's process. */
  get pid(): number {
    assert.ok(this.#process.pid);
    return this.#process.pid;
  }

  /** Whether QEMU has not ended. */
  get isRunning(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** Processor time that QEMU has had, in milliseconds: fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms. */
  cpuMs(): number {
    const fields = readFileSync(`/proc/${this.pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    return 10 * (Number(fields[11]) + Number(fields[12]));
  }

  /** Resolves when the console has shown `text`; fails when QEMU ends first. */
  async shows(text: string): Promise<void> {
    let stop = () => {};
    const seen = new Promise<void>((resolve) => {
      const look = () => {
        if (this.#console.includes(text)) resolve();
      };
      this.#listeners.add(look);
      stop = () => this.#listeners.delete(look);
      look();
    });
    const ended = this.#exited.then(() => {
      if (!this.#console.includes(text)) throw new Error(`QEMU ended before "${text}":\n${this.#console}`);
    });
    await within(Promise.race([seen, ended]), `a console that shows "${text}"`, () => this.#console).finally(() =>
      stop(),
    );
  }

  /** Resolves with QEMU's exit code when the machine is off. */
  off(): Promise<number | null> {
    return within(this.#exited, "a machine that is off", () => this.#console);
  }

  /** Sends one command over QMP and resolves with its answer. */
  async qmp(command: string): Promise<unknown> {
    const socket = createConnection(join(this.directory, "qmp"));
    let text = "";
    const answer = async (): Promise<unknown> => {
      socket.setEncoding("utf8").on("data", (part: string) => (text += part));
      socket.write(`{"execute":"qmp_capabilities"}\n{"execute":"${command}","id":"answer"}\n`);
      for await (const _ of socket.iterator({ destroyOnReturn: false })) {
        const line = text.split("\n").find((candidate) => candidate.includes('"id": "answer"'));
        if (line !== undefined) return JSON.parse(line);
      }
      throw new Error(`QMP ended before it answered ${command}: ${text}`);
    };
    return within(answer(), `QMP's answer to ${command}`, () => text).finally(() => socket.destroy());
  }

  /** Ends QEMU if it still runs, and removes its files. */
  async close(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#exited;
    rmSync(this.directory, { recursive: true, force: true });
  }
}
