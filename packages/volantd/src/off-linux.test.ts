import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test, { after, before } from "node:test";
import { LOADED_EXIT_CODE } from "./testing/off-linux-exit.ts";

const preload = ["--import", join(import.meta.dirname, "testing/off-linux.ts")];
let directory: string;

before(() => {
  directory = mkdtempSync(join(tmpdir(), "off-linux-"));
});
after(() => rmSync(directory, { recursive: true, force: true }));

interface Started {
  readonly url: string;
  /** What it has written on standard error so far, line by line. */
  readonly lines: readonly string[];
  stop(): Promise<number | null>;
}

/** volantd with settings of its own, and a stand-in for QEMU that only tells its version. */
async function startVolantd(env: Readonly<Record<string, string>>): Promise<Started> {
  const home = mkdtempSync(join(directory, "home-"));
  const qemu = join(home, "qemu");
  writeFileSync(qemu, "#!/bin/sh\necho QEMU emulator version 7.2.0\n", { mode: 0o755 });
  mkdirSync(join(home, "kernel"));
  for (const name of ["bzImage", "vmlinux"]) writeFileSync(join(home, "kernel", name), "");
  const child = spawn(process.execPath, [...preload, join(import.meta.dirname, "main.ts")], {
    env: {
      PATH: process.env["PATH"],
      HOME: home,
      VOLANT_API_LISTEN: "127.0.0.1:0",
      VOLANT_WORK_DIR: home,
      VOLANT_HYPERVISOR: qemu,
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const lines: string[] = [];
  createInterface({ input: child.stderr }).on("line", (line) => lines.push(line));
  const ended = once(child, "close") as Promise<[number | null]>;
  const url = await new Promise<string>((resolve, reject) => {
    void ended.then(([code]) => reject(new Error(`volantd ended with ${code}: ${lines.join("\n")}`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const listening = /^volantd: listening on (.+)$/.exec(line);
      if (listening !== null) resolve(listening[1] as string);
    });
  });
  return {
    url,
    lines,
    stop: async () => {
      child.kill("SIGTERM");
      const [code] = await ended;
      return code;
    },
  };
}

test("off Linux volantd starts with one warning, answers, and loads neither netlink nor koffi", async () => {
  const volantd = await startVolantd({});
  const summary = (await (await fetch(`${volantd.url}/api/v1/system/summary`)).json()) as { total_vms: number };
  assert.equal(summary.total_vms, 0);
  assert.equal(await volantd.stop(), 0);
  const warnings = volantd.lines
    .map((line) => JSON.parse(line) as { level: string; message: string })
    // Where the agent is not built yet, that is told, too.
    .filter(({ level, message }) => level !== "info" && !message.includes("kestrel"));
  assert.deepEqual(
    warnings.map(({ level, message }) => [level, message]),
    [["warn", "volantd manages no network here: taps must be made by hand"]],
  );
});

test("the proof can fail: told to manage a bridge there, volantd loads netlink and is caught", async () => {
  await assert.rejects(startVolantd({ VOLANT_NETWORK: "bridge" }), (error: Error) => {
    assert.match(error.message, new RegExp(`ended with ${LOADED_EXIT_CODE}: `));
    assert.match(error.message, /compose\.ts loads @volant\/netlink/);
    return true;
  });
});
