/** The stand-in hypervisor takes and refuses the argument lists that real QEMU takes and refuses. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { closeTap, Netlink, openTap } from "@volant/netlink";
import { findQemu } from "../../packages/volantd/src/runtime/qemu/host-facts.ts";
import { type Machine, qemuArguments } from "../../packages/volantd/src/runtime/qemu/argv.ts";
import { ListeningSocket } from "../../packages/volantd/src/runtime/vm-folder.ts";
import { enterOwnNamespace } from "../namespace.ts";
import { within } from "../patience.ts";
import { root } from "../vm/house.ts";
import { installStandIn } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

type Change = (args: readonly string[]) => readonly string[];

const add =
  (...words: string[]): Change =>
  (args) => [...args, ...words];
const addFirst =
  (...words: string[]): Change =>
  (args) => [...words, ...args];
/** Replaces text wherever it stands; it must stand somewhere. */
const replace =
  (from: string, to: string): Change =>
  (args) => {
    assert.ok(
      args.some((word) => word.includes(from)),
      `${from} is in the list`,
    );
    return args.map((word) => word.replaceAll(from, to));
  };
/** Removes an option with its value. */
const remove =
  (option: string): Change =>
  (args) => {
    const at = args.indexOf(option);
    assert.ok(at !== -1, `${option} is in the list`);
    return args.toSpliced(at, 2);
  };

const ACCEPTED: Readonly<Record<string, Change>> = {
  "what volantd gives": (args) => args,
  "an option with two dashes": replace("-no-reboot", "--no-reboot"),
  "memory without a unit": replace("128M", "96"),
  "no memory, which means the default": replace("128M", "0M"),
  "a commas-and-all name": replace("guest=", "guest=a,,b=c,,"),
  "several processors": add("-smp", "2"),
  "all sandbox words": replace("spawn=deny", "spawn=allow"),
  "offloads that are off": replace(",netdev=net0", ",netdev=net0,csum=off,guest_csum=off,gso=off,host_mtu=1400"),
  "a MAC with dashes": replace("02:00:00:00:00:07", "02-00-00-00-00-07"),
  "a serial port without a chardev": add("-device", "virtserialport,name=more"),
  "another chardev": add("-chardev", "null,id=more"),
  "another random source": add("-object", "rng-builtin,id=more"),
  "no command line": remove("-append"),
  "a translation buffer of another size": replace("tb-size=64", "tb-size=32"),
};

const REFUSED: Readonly<Record<string, Change>> = {
  "an unknown option": add("-frobnicate"),
  "an option without its value": add("-m"),
  "a stray word": add("stray"),
  "an unknown accelerator": replace("tcg,tb-size=64", "nosuch"),
  "an unknown property of the accelerator": replace("tb-size=64", "foo=1"),
  "a translation buffer that is no number": replace("tb-size=64", "tb-size=abc"),
  "an unknown processor": replace("max", "nosuch"),
  "the host's processor without KVM": replace("max", "host"),
  "memory that is no number": replace("128M", "abc"),
  "memory with an unknown unit": replace("128M", "128Q"),
  "negative memory": replace("128M", "-1"),
  "more memory than there is": replace("128M", "16000000M"),
  "too many processors": add("-smp", "300"),
  "processors that are no number": add("-smp", "abc"),
  "an unknown property of processors": add("-smp", "1,foo=1"),
  "an unknown display": add("-display", "nosuch"),
  "an unknown sandbox word": replace("spawn=deny", "foo=deny"),
  "a sandbox that is neither on nor off": replace("on,obsolete", "maybe,obsolete"),
  "a sandbox word with an unknown value": replace("spawn=deny", "spawn=maybe"),
  "an unknown property of the name": replace("guest=", "foo=1,guest="),
  "a command line without a kernel": remove("-kernel"),
  "a kernel that is not there": replace("/proc/self/fd/3", "/nonexistent"),
  "a kernel that is none": replace("/proc/self/fd/3", "/etc/hostname"),
  "a boot image that is not there": replace("/proc/self/fd/4", "/nonexistent"),
  "a descriptor set of a closed descriptor": replace("fd=5,set=1", "fd=77,set=1"),
  "a descriptor set of standard output": replace("fd=5,set=1", "fd=1,set=1"),
  "a descriptor set without a descriptor": replace("fd=5,set=1", "set=1"),
  "a log in a set that is not there": replace("/dev/fdset/1", "/dev/fdset/2"),
  "a chardev on a closed descriptor": replace("fd=7", "fd=77"),
  "a chardev on a descriptor that is no socket": replace("fd=7", "fd=3"),
  "a chardev without an id": add("-chardev", "null"),
  "a chardev whose id is none": add("-chardev", "null,id=1bad"),
  "a chardev's id twice": add("-chardev", "null,id=qmp"),
  "an unknown chardev": add("-chardev", "nosuch,id=more"),
  "an unknown property of a chardev": add("-chardev", "null,id=more,foo=1"),
  "a monitor on a chardev that is not there": replace("chardev=qmp", "chardev=none"),
  "a monitor of an unknown mode": replace("mode=control", "mode=foo"),
  "a monitor without a chardev": add("-mon", "mode=control"),
  "an unknown property of the monitor": replace("mode=control", "mode=control,foo=1"),
  "the monitor's chardev for the serial port": replace("chardev:serial", "chardev:qmp"),
  "a serial port on a chardev that is not there": replace("chardev:serial", "chardev:none"),
  "an unknown serial port": add("-serial", "nosuch:x"),
  "an unknown device": add("-device", "nosuch"),
  "an unknown property of a device": replace("max_ports=4", "max_ports=4,foo=1"),
  "no ports": replace("max_ports=4", "max_ports=0"),
  "too few ports": replace("max_ports=4", "max_ports=2"),
  "ports that are no number": replace("max_ports=4", "max_ports=x"),
  "a port before its bus": addFirst("-device", "virtserialport,name=early"),
  "a port's name twice": add("-device", "virtserialport,name=volant.control"),
  "a chardev in use": add("-device", "virtserialport,name=more,chardev=control"),
  "the monitor's chardev for a port": add("-device", "virtserialport,name=more,chardev=qmp"),
  "a port on a chardev that is not there": add("-device", "virtserialport,name=more,chardev=none"),
  "a vsock device without its backend": add("-device", "vhost-user-vsock-device"),
  "a vsock device on a chardev that is not there": add("-device", "vhost-user-vsock-device,chardev=none"),
  "a vsock device on the monitor's chardev": add("-device", "vhost-user-vsock-device,chardev=qmp"),
  "an unknown property of a vsock device": add("-device", "vhost-user-vsock-device,chardev=none,foo=1"),
  "memory in a file that can't be there": add("-object", "memory-backend-file,id=m,size=128M,mem-path=/nonexistent/m"),
  "memory in no file": add("-object", "memory-backend-file,id=m,size=128M"),
  "an unknown object": add("-object", "nosuch,id=more"),
  "an object without an id": add("-object", "rng-builtin"),
  "an object's id twice": add("-object", "rng-builtin,id=rng"),
  "an unknown property of an object": add("-object", "rng-builtin,id=more,foo=1"),
  "a random device without its source": remove("-object"),
  "a random device on a source that is not there": replace("rng=rng", "rng=none"),
  "an unknown network": add("-netdev", "nosuch,id=more"),
  "a network without an id": replace("tap,id=net0,", "tap,"),
  "a tap on a closed descriptor": replace("fd=10", "fd=77"),
  "a tap on a descriptor that is none": replace("fd=10", "fd=3"),
  "an unknown property of a tap": replace("vhost=off", "vhost=off,foo=1"),
  "a network's id twice": add("-netdev", "tap,id=net0,fd=10,vhost=off"),
  "a card on a network that is not there": replace("netdev=net0", "netdev=none"),
  "a MAC that is none": replace("02:00:00:00:00:07", "zz:00:00:00:00:07"),
  "a MAC that is too short": replace("02:00:00:00:00:07", "02:00:00:00:00"),
  "a flag that is neither on nor off": replace(",netdev=net0", ",netdev=net0,csum=maybe"),
  "a number that is too large": replace(",netdev=net0", ",netdev=net0,host_mtu=70000"),
};

const ONE_MACHINE: Readonly<Record<string, readonly [Machine, Change]>> = {
  "an unknown machine": ["q35", replace("q35", "nosuch")],
  "an unknown property of the machine": ["microvm", replace("microvm", "microvm,foo=1")],
  "a memory backend that is not there": ["q35", replace("q35", "q35,memory-backend=none")],
  "a PCI device without PCI": ["microvm", add("-device", "virtio-rng-pci")],
  "an MMIO device with PCI only": ["q35", add("-device", "virtio-rng-device")],
  "a ROM for a card that has none": ["microvm", replace(",netdev=net0", ",netdev=net0,romfile=")],
};

let folder: string;
let standIn: ReturnType<typeof installStandIn>;
let qemu: string;
let netlink: Netlink;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "verdicts-"));
  standIn = installStandIn();
  qemu = await findQemu(undefined, process.env["PATH"] ?? "");
  netlink = await Netlink.open();
  writeFileSync(join(folder, "initrd"), "an image");
});

after(async () => {
  await netlink.close();
  for (const directory of [folder, standIn.folder]) rmSync(directory, { recursive: true });
});

function goodList(machine: Machine): string[] {
  const spec = {
    vmId: 7,
    generation: 1,
    name: "web",
    cpuCores: 1,
    memoryMib: 128,
    kernel: { bzImagePath: "/given/by/descriptor" },
    initrdPath: "/given/by/descriptor",
    cmdline: "volant.plugin=hello",
    network: { tap: "vttap-web", mac: "02:00:00:00:00:07" },
    vsockCid: 9,
  };
  return qemuArguments("abc", spec, { accelerator: "tcg", machine, tscKhz: 2_400_000 });
}

interface Verdict {
  readonly accepted: boolean;
  readonly said: string;
}

let count = 0;

/** Starts a hypervisor as volantd does, stopped before its guest's first instruction, and has it quit once it takes commands. */
async function judge(program: string, args: readonly string[]): Promise<Verdict> {
  count += 1;
  const name = (what: string): string => join(folder, `${what}-${count}`);
  const tapName = `judged${count}`;
  await netlink.taps.create({ name: tapName });
  const tap = await openTap(tapName);
  const files = [
    openSync(join(root, ".cache/volant/kernel/vmlinux"), "r"),
    openSync(join(folder, "initrd"), "r"),
    openSync(name("console"), "a"),
  ];
  const sockets = await Promise.all(
    ["qmp", "control", "stream", "serial"].map((what) => ListeningSocket.bind(name(what))),
  );
  const given = [...files, ...sockets.map((socket) => socket.fd), tap];
  const child = spawn(program, ["-S", ...args], { stdio: ["ignore", "ignore", "pipe", ...given] });
  let said = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (said += text));
  const ended = new Promise((resolve) => child.once("close", resolve));
  for (const socket of sockets) socket.close();
  for (const file of files) closeSync(file);
  await closeTap(tap);
  const client = connect(name("qmp"), () => {
    client.write('{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n');
  });
  client.resume();
  // A hypervisor that refuses its arguments takes the socket with it.
  client.on("error", () => {});
  const code = await within(ended, "the verdict of a hypervisor", () => said).finally(() => child.kill("SIGKILL"));
  client.destroy();
  await netlink.links.delete(tapName);
  return { accepted: code === 0, said };
}

async function compare(title: string, args: readonly string[], accepted: boolean): Promise<void> {
  const real = await judge(qemu, args);
  const ours = await judge(standIn.path, args);
  assert.equal(real.accepted, accepted, `${title}: what QEMU says of it: ${real.said}`);
  assert.equal(ours.accepted, real.accepted, `${title}: QEMU said ${real.said}; the stand-in ${ours.said}`);
  if (!accepted) assert.match(ours.said, /^volant-stand-in: \S.*\n$/, `${title}: one line says why`);
}

for (const machine of ["microvm", "q35"] as const) {
  test(`on ${machine} both take what volantd gives them, and what differs from it and is right`, async () => {
    await compare("what volantd gives", goodList(machine), true);
  });
}

test("both take variations that are right", async () => {
  for (const [title, change] of Object.entries(ACCEPTED)) await compare(title, change(goodList("microvm")), true);
});

test("both refuse variations that are wrong", async () => {
  for (const [title, change] of Object.entries(REFUSED)) await compare(title, change(goodList("microvm")), false);
});

test("both refuse what the machine does not have", async () => {
  for (const [title, [machine, change]] of Object.entries(ONE_MACHINE)) {
    await compare(title, change(goodList(machine)), false);
  }
});
