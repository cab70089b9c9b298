import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import fc from "fast-check";
import { findProcessMark } from "../process-mark.ts";
import type { LaunchSpec } from "../runtime.ts";
import {
  chooseMachine,
  confinedCommand,
  FD,
  kernelCmdline,
  optionValue,
  qemuArguments,
  type MachineFacts,
} from "./argv.ts";

const microvm: MachineFacts = { accelerator: "tcg", machine: "microvm", tscKhz: 2_400_000 };
const q35: MachineFacts = { accelerator: "tcg", machine: "q35" };

function spec(changes: Partial<LaunchSpec> = {}): LaunchSpec {
  return {
    vmId: 7,
    generation: 2,
    name: "web",
    cpuCores: 1,
    memoryMib: 128,
    kernel: { bzImagePath: "/k/bzImage" },
    initrdPath: "/k/initrd",
    cmdline: "volant.plugin=hello",
    network: { tap: "vttap-web", mac: "02:00:00:00:00:07" },
    vsockCid: 10,
    ...changes,
  };
}

/** Splits an option's value as QEMU does: at single commas; a doubled one is a comma. */
function splitOption(value: string): string[] {
  return value
    .replaceAll(",,", "\0")
    .split(",")
    .map((part) => part.replaceAll("\0", ","));
}

test("an option value with commas stays one value", () => {
  fc.assert(
    fc.property(fc.string(), (value) => {
      assert.deepEqual(splitOption(`guest=${optionValue(value.replaceAll("\0", ""))}`), [
        `guest=${value.replaceAll("\0", "")}`,
      ]);
    }),
  );
});

test("no value of a launch adds, removes or moves an argument", () => {
  const shape = (args: readonly string[]): string[] => args.filter((word) => /^-[a-z]/.test(word));
  const expected = shape(qemuArguments("abc", spec(), microvm));
  const hostile = fc.oneof(
    fc.string({ unit: fc.constantFrom(...", =-:/\"'$`\\ \n\0aé") }),
    fc.constantFrom("-qmp", "x -monitor stdio", ",script=/bin/sh", "a,,b", "-serial file:/etc/passwd"),
  );
  fc.assert(
    fc.property(hostile, hostile, hostile, (name, cmdline, mac) => {
      try {
        const args = qemuArguments("abc", spec({ name, cmdline, network: { tap: name, mac } }), microvm);
        assert.deepEqual(shape(args), expected);
      } catch (error) {
        assert.ok(error instanceof VolantError && error.code === "invalid", String(error));
      }
      const args = qemuArguments("abc", spec({ name, network: { tap: name, mac: "02:00:00:00:00:07" } }), microvm);
      assert.deepEqual(args, qemuArguments("abc", spec(), microvm));
    }),
    { numRuns: 1000 },
  );
});

test("numbers out of range are refused", () => {
  for (const changes of [
    { cpuCores: 0 },
    { cpuCores: 1.5 },
    { cpuCores: 256 },
    { memoryMib: 0 },
    { memoryMib: Number.NaN },
  ]) {
    assert.throws(() => qemuArguments("abc", spec(changes), microvm), { code: "invalid" });
  }
});

test("a command line that the kernel would cut is refused with its length", () => {
  const fixed = kernelCmdline(microvm, "").length + 1;
  assert.equal(kernelCmdline(microvm, "x".repeat(2047 - fixed)).length, 2047);
  assert.throws(
    () => kernelCmdline(microvm, "x".repeat(2048 - fixed)),
    /is 2048 bytes long, and the kernel reads 2047/,
  );
});

test("an emulated guest is told the counter's rate where that is known, and no other is", () => {
  assert.match(kernelCmdline(microvm, ""), / pci=off tsc_early_khz=2400000$/);
  assert.match(kernelCmdline({ ...q35, tscKhz: 2_400_000 }, ""), / no_timer_check tsc_early_khz=2400000$/);
  assert.doesNotMatch(kernelCmdline({ accelerator: "kvm", machine: "microvm", tscKhz: 1 }, ""), /tsc_early_khz/);
  assert.doesNotMatch(kernelCmdline(q35, ""), /tsc_early_khz|pci=off/);
});

test("an emulated guest gets the machine that has a timer besides the processor's own", () => {
  assert.equal(chooseMachine("tcg"), "q35");
  assert.equal(chooseMachine("kvm"), "microvm");
});

test("a machine has the devices of its bus, and no network where the guest has none", () => {
  const mmio = qemuArguments("abc", spec(), microvm).join(" ");
  assert.match(mmio, /virtio-net-device,netdev=net0,mac=02:00:00:00:00:07/);
  assert.doesNotMatch(mmio, /-pci/);
  const pci = qemuArguments("abc", spec(), q35).join(" ");
  assert.match(pci, /virtio-net-pci,netdev=net0,mac=02:00:00:00:00:07,romfile=/);
  const { network: _, ...rest } = spec();
  assert.doesNotMatch(qemuArguments("abc", rest, q35).join(" "), /netdev|virtio-net/);
});

test("a vsock device has its bus's driver, its backend by descriptor, and shared memory of the guest's size, on either machine", () => {
  for (const [facts, driver] of [
    [microvm, "vhost-user-vsock-device"],
    [q35, "vhost-user-vsock-pci"],
  ] as const) {
    const args = qemuArguments("abc", spec(), facts, true).join(" ");
    assert.match(args, new RegExp(`-machine ${facts.machine},memory-backend=memory `));
    assert.match(args, /-object memory-backend-file,id=memory,size=128M,share=on,mem-path=\/proc\/self\/fd\/11 /);
    assert.match(args, new RegExp(`-chardev socket,id=vsock,fd=12 -device ${driver},chardev=vsock$`));
    assert.doesNotMatch(args, /reconnect/);
    assert.doesNotMatch(qemuArguments("abc", spec(), facts).join(" "), /memory-backend|vsock/);
  }
});

test("the mark can be read from the whole chain's arguments, and what confines is told who to be and what to leave", () => {
  const args = qemuArguments("abc", spec(), microvm);
  const confinement = { confiner: "/x/volant-confine", uid: 5, gid: 6, groups: [], maxFileBytes: 100 };
  const command = confinedCommand(confinement, "/usr/bin/qemu", args);
  assert.deepEqual(findProcessMark(command.join("\0")), { installation: "abc", vmId: 7, generation: 2 });
  const options = ["--uid", "5", "--gid", "6", "--file-bytes", "100", "--oom-score-adj", "200"];
  assert.deepEqual(command, ["/x/volant-confine", ...options, "/usr/bin/qemu", ...args]);
  const withKvm = confinedCommand({ ...confinement, groups: [108, 9] }, "/usr/bin/qemu", []);
  assert.match(withKvm.join(" "), / --gid 6 --group 108 --group 9 --file-bytes 100 /);
});

test("descriptors are numbered without gaps, so that they can be given in order", () => {
  assert.deepEqual(Object.values(FD), [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
});
