import assert from "node:assert/strict";
import test from "node:test";
import { parseLinkTraffic, parseProcessTimes, parseResidentBytes } from "./process-usage.ts";

/** Field n of the line is n, but for the name. */
function stat(name: string): string {
  const fields = Array.from({ length: 52 }, (_, index) => String(index + 1));
  return `${fields.toSpliced(1, 2, `(${name})`, "S").join(" ")}\n`;
}

test("a process's times are read, whatever its name holds", () => {
  for (const name of ["qemu-system-x86", "a) b (c", ""]) {
    assert.deepEqual(parseProcessTimes(stat(name)), { startTicks: 22n, cpuMs: (14 + 15) * 10 });
  }
});

test("what is no line of times gives none", () => {
  for (const text of ["", "1 2 3", "1 (x) S 4", stat("x").replace(" 15 ", " many ")]) {
    assert.equal(parseProcessTimes(text), undefined, text);
  }
});

test("resident memory is kibibytes; a process that is ending has none", () => {
  assert.equal(parseResidentBytes("Name:\tqemu\nVmRSS:\t   2048 kB\nRssAnon:\t 1 kB\n"), 2_097_152);
  assert.equal(parseResidentBytes("Name:\tqemu\nState:\tZ (zombie)\n"), 0);
});

test("counters are by the name of the link, also where they leave no room behind its colon", () => {
  const table = [
    "Inter-|   Receive                                                |  Transmit",
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed",
    "    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0",
    "vttap-web:9007199254740991 7 0 0 0 0 0 0 5 6 0 0 0 0 0 0",
    "",
  ].join("\n");
  assert.deepEqual(
    [...parseLinkTraffic(table)],
    [
      ["lo", { rxBytes: 1, rxPackets: 2, txBytes: 3, txPackets: 4 }],
      ["vttap-web", { rxBytes: Number.MAX_SAFE_INTEGER, rxPackets: 7, txBytes: 5, txPackets: 6 }],
    ],
  );
  assert.equal(parseLinkTraffic("").size, 0);
});
