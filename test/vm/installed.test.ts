/** The production path: the package that `npm run package` makes, installed by npm as a user would, away from this checkout. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { VOLANT_VERSION } from "@volant/contract/defaults";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace } from "../namespace.ts";
import { fetchInTime } from "../patience.ts";
import { type House, openHouse, root } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

const INSTALLED = "VOLANT_TEST_INSTALLED";

/** Makes the package and installs it; gives the folder of it all. Its dependency comes from the registry, which this file's network namespace does not reach. */
function install(): string {
  const folder = mkdtempSync(join(tmpdir(), "installed-"));
  const quiet = { stdio: "pipe" } as const;
  execFileSync(process.execPath, [join(root, "scripts/package.ts"), folder], quiet);
  // Where npm's prefix is, its Node is.
  mkdirSync(join(folder, "prefix/bin"), { recursive: true });
  cpSync(process.execPath, join(folder, "prefix/bin/node"));
  const file = join(folder, `volant-${VOLANT_VERSION}.tgz`);
  const options = ["--global", "--prefix", join(folder, "prefix"), "--prefer-offline", "--no-audit", "--no-fund"];
  execFileSync("npm", ["install", ...options, file], quiet);
  return folder;
}

const folder = process.env[INSTALLED] ?? install();
process.env[INSTALLED] = folder;
enterOwnNamespace(import.meta.url);

const programs = join(folder, "prefix/bin");
/** No Node on it, as for a unit of systemd's. */
const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", NODE_COMPILE_CACHE: "" };
let house: House;

before(async () => {
  house = await openHouse({ programs, env });
});

after(async () => {
  await house?.close();
  rmSync(folder, { recursive: true, force: true });
});

test("the package's programs have all that they need beside them, and nothing of it is this checkout's", () => {
  const installed = join(folder, "prefix/lib/node_modules/volant");
  for (const path of [
    "lib/main/volantd.js",
    "lib/main/volar.js",
    "lib/kestrel",
    "lib/volant-confine",
    "README.md",
    "LICENSE",
  ])
    assert.ok(existsSync(join(installed, path)), `${path} is there`);
  assert.ok(
    !readFileSync(join(installed, "lib/main/volantd.js"), "utf8").includes(root),
    "no path of the checkout is in it",
  );
});

test("a VM boots under the installed volantd, with the installed agent, and answers", async () => {
  const version = await house.volarJson<{ readonly client: string; readonly server: string }>("version");
  assert.equal(version.client, VOLANT_VERSION);
  assert.equal(version.server, VOLANT_VERSION);
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
  const vm = await house.volarJson<Vm>("vms", "create", "first", "--plugin", "probe", "--wait");
  assert.equal(vm.status, "running");
  assert.equal(await (await fetchInTime(`http://${vm.ip_address}/`)).text(), "probe\n");
  assert.equal(await house.volarDone("vms", "exec", "first", "--", "busybox", "hostname"), "first\n");
  await house.volarDone("vms", "delete", "first");
});

test("the unit that its set-up would write starts the installed programs", async () => {
  const stdout = await house.volarDone("setup", "--dry-run");
  assert.match(stdout, new RegExp(`ExecStart=\\S*${join(folder, "prefix/lib/node_modules/volant/bin/volantd")}`));
});
