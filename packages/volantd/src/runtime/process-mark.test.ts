import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import test from "node:test";
import fc from "fast-check";
import { findProcessMark, formatProcessMark, isAlive, parseProcessStat } from "./process-mark.ts";
import { isRunning, scanProcesses, startTicksOf } from "./process-table.ts";

const mark = fc.record(
  {
    installation: fc.stringMatching(/^[0-9a-f]{8,16}$/),
    vmId: fc.integer({ min: 1, max: 247_000_000 }),
    generation: fc.nat(),
  },
  { noNullPrototype: true },
);

test("a mark is found again among arguments, alone or as QEMU's guest name", () => {
  fc.assert(
    fc.property(mark, fc.constantFrom("", "guest="), (value, prefix) => {
      const cmdline = ["setpriv", "--reuid", "1", "-name", prefix + formatProcessMark(value), "-m"].join("\0");
      assert.deepEqual(findProcessMark(cmdline), value);
    }),
  );
});

test("an argument that merely holds a mark is none", () => {
  for (const text of ["xvolant:abc:1:1", "volant:abc:0:1", "volant:abc:1:1,x", "volant:abc:1", "volant:a b:1:1"]) {
    assert.equal(findProcessMark(text), undefined, text);
  }
});

test("a process's name can't shift the fields after it", () => {
  const fields = `S ${Array.from({ length: 18 }, () => "0").join(" ")} 4242 0`;
  for (const comm of ["qemu", "a) Z 1 (b", "((", ") "]) {
    assert.deepEqual(parseProcessStat(`7 (${comm}) ${fields}`), { comm, state: "S", startTicks: 4242n });
  }
  assert.equal(parseProcessStat("nonsense"), undefined);
  assert.equal(isAlive({ comm: "", state: "Z", startTicks: 1n }), false);
});

test("the table shows a marked process by program, owner and installation; a dead one is gone", async () => {
  const installation = "0badcafe1";
  const child = spawn("sleep", ["60"], { argv0: formatProcessMark({ installation, vmId: 5, generation: 3 }) });
  try {
    await once(child, "spawn");
    const pid = child.pid as number;
    const startTicks = startTicksOf(pid);
    const scan = { installation, programs: ["sleep"], uidOf: () => process.getuid?.() ?? 0 };
    assert.deepEqual(await scanProcesses(scan), [{ vmId: 5, generation: 3, pid, startTicks, role: "hypervisor" }]);
    assert.deepEqual(await scanProcesses({ ...scan, programs: ["qemu-system-x86_64"] }), []);
    assert.deepEqual(await scanProcesses({ ...scan, installation: "other" }), []);
    assert.equal(isRunning({ pid, startTicks: startTicks as bigint }), true);
    assert.equal(isRunning({ pid, startTicks: (startTicks as bigint) + 1n }), false);
    const exit = once(child, "exit");
    child.kill("SIGKILL");
    await exit;
    assert.deepEqual(await scanProcesses(scan), []);
  } finally {
    child.kill("SIGKILL");
  }
});
