import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import test from "node:test";
import { unsupportedReason } from "./libc.ts";

/** Runs a program in a Node of its own that believes to be on `platform`, and returns what it printed. */
function runOn(platform: string, program: string): unknown {
  const source = `
    Object.defineProperty(process, "platform", { value: ${JSON.stringify(platform)} });
    const { Netlink, openTap, NetlinkError } = await import(${JSON.stringify(import.meta.resolve("../index.ts"))});
    const koffiLoaded = () => process.report.getReport().sharedObjects.some((path) => path.includes("koffi"));
    ${program}`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", source], { encoding: "utf8" });
  assert.notEqual(stdout, "", stderr);
  return JSON.parse(stdout);
}

const REFUSED = `
  const opened = await Netlink.open().catch((error) => error);
  let tap;
  try { await openTap("t0"); } catch (error) { tap = error; }
  console.log(JSON.stringify([opened, tap].map((error) => [error instanceof NetlinkError, error.code]).concat(koffiLoaded())));`;

test("off Linux, the package can be imported, koffi is never loaded, and opening is one clear EUNSUPPORTED", () => {
  for (const platform of ["darwin", "win32"]) {
    assert.deepEqual(runOn(platform, REFUSED), [[true, "EUNSUPPORTED"], [true, "EUNSUPPORTED"], false]);
  }
  assert.match(unsupportedReason("darwin", "LE") ?? "", /Linux's own, and this is darwin/);
});

test("on Linux, importing the package does not load koffi; opening it does", () => {
  const program =
    "const before = koffiLoaded(); const nl = await Netlink.open(); console.log(JSON.stringify([before, koffiLoaded()])); await nl.close();";
  assert.deepEqual(runOn("linux", program), [false, true]);
});

test("a big-endian machine is refused in words, and a little-endian Linux is not", () => {
  assert.match(unsupportedReason("linux", "BE") ?? "", /little-endian/);
  assert.equal(unsupportedReason("linux", "LE"), undefined);
});
