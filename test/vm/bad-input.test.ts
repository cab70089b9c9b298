/** Every mistake gets one clear sentence, the right exit code, and leaves nothing behind. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace, ipJson } from "../namespace.ts";
import { fetchInTime } from "../patience.ts";
import { type Finished, House, openHouse, runProgram, testedPrograms, vmEntries } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

let house: House;
let pluginDirectory: string;

before(async () => {
  // Two usable addresses, one of them the host's: the second VM finds the pool empty.
  house = await openHouse({
    env: { VOLANT_SUBNET: "10.77.0.0/30", VOLANT_HOST_IP: "10.77.0.1", VOLANT_BRIDGE: "vbr7" },
  });
  pluginDirectory = join(house.directory, "probe");
  mkdirSync(pluginDirectory);
  await house.volarDone("plugins", "install", buildProbePlugin(pluginDirectory));
});

after(async () => {
  await house?.close();
});

/** One line on standard error that says `sentence`, perhaps one more with a hint, no stack, and this exit code. */
function assertRefused(result: Finished, code: number, sentence: RegExp): void {
  assert.match(result.stderr, sentence);
  assert.equal(result.code, code, result.stderr);
  const lines = result.stderr.trim().split("\n");
  assert.ok(lines.length <= 2, `one sentence and at most a hint, not: ${result.stderr}`);
  assert.doesNotMatch(result.stderr, /\n\s+at /, "no stack trace");
  assert.equal(result.stdout, "");
}

async function assertNothingMade(): Promise<void> {
  assert.deepEqual(await house.vms(), []);
  assert.deepEqual(
    ipJson("link", "show").filter((link) => String(link["ifname"]).startsWith("vttap")),
    [],
  );
  assert.deepEqual(await house.hypervisors(), []);
}

const names: Record<string, [name: string, sentence: RegExp]> = {
  "with a slash": ["a/b", /VM name "a\/b" must not contain "\/"/],
  "with a comma": ["a,b", /VM name "a,b" must not contain ","/],
  "with a space": ["a b", /VM name "a b" must not contain " "/],
  "of 300 bytes": ["a".repeat(300), /300 characters/],
  "that is empty": ["", /empty/],
};
for (const [what, [name, sentence]] of Object.entries(names)) {
  test(`a VM name ${what} is refused by name`, async () => {
    assertRefused(await house.volar("vms", "create", name, "--plugin", "probe"), 2, sentence);
    const response = await fetchInTime("http://127.0.0.1:7777/api/v1/vms", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name, plugin: "probe" }),
    });
    assert.equal(response.status, 400);
    await assertNothingMade();
  });
}

test("an unknown plugin is named", async () => {
  assertRefused(await house.volar("vms", "create", "web", "--plugin", "nope"), 1, /plugin "nope"/);
  await assertNothingMade();
});

test("8 MiB of memory are too few, and the sentence says how many are needed", async () => {
  assertRefused(await house.volar("vms", "create", "web", "--plugin", "probe", "--memory", "8"), 2, /8 MiB.*\d\d MiB/);
  await assertNothingMade();
});

interface ManifestMistake {
  readonly changes: Readonly<Record<string, unknown>>;
  readonly sentence: RegExp;
}
const mistakes: Record<string, ManifestMistake> = {
  "an unknown field": { changes: { colour: "blue" }, sentence: /unknown field "colour"/ },
  "an unknown field in a part": { changes: { workload: { port: 80 } }, sentence: /unknown field "workload\.port"/ },
  "no boot media": { changes: { initramfs: undefined }, sentence: /initramfs.*rootfs|rootfs.*initramfs/ },
  "a wrong checksum": {
    changes: { initramfs: { url: "probe.cpio", checksum: `sha256:${"0".repeat(64)}` } },
    sentence: /probe\.cpio.*sha256:[0-9a-f]{64}/,
  },
  "a missing file": { changes: { initramfs: { url: "absent.cpio" } }, sentence: /absent\.cpio/ },
  "a name with a slash": { changes: { name: "a/b" }, sentence: /name/ },
  "a file that is no cpio archive": { changes: { initramfs: { url: "manifest.json" } }, sentence: /cpio/ },
};
for (const [what, { changes, sentence }] of Object.entries(mistakes)) {
  test(`a manifest with ${what} is refused, and no plugin is made of it`, async () => {
    const directory = join(house.directory, "mistake");
    mkdirSync(directory);
    const manifest = buildProbePlugin(directory, { name: "mistaken", ...changes });
    assertRefused(await house.volar("plugins", "install", manifest), 2, sentence);
    assert.deepEqual(
      await house.volarJson("plugins", "list").then((list) => JSON.stringify(list).includes("mistaken")),
      false,
    );
    rmSync(directory, { recursive: true });
  });
}

test("a taken name is refused, and an exhausted pool says which subnet is full; both leave the first VM alone", async () => {
  const vm = await house.volarJson<Vm>("vms", "create", "only", "--plugin", "probe", "--wait");
  assert.equal(vm.ip_address, "10.77.0.2");
  assertRefused(await house.volar("vms", "create", "only", "--plugin", "probe"), 1, /"only".*exists/);
  assertRefused(await house.volar("vms", "create", "more", "--plugin", "probe"), 1, /10\.77\.0\.0\/30/);
  assert.deepEqual(
    (await house.vms()).map(({ name, status }) => ({ name, status })),
    [{ name: "only", status: "running" }],
  );
  await house.volarDone("vms", "delete", "only");
  await assertNothingMade();
});

/** Runs volantd, which must refuse to start, with changed settings; `inside` prepares a mount namespace of its own. */
async function refusedStart(changes: Readonly<Record<string, string>>): Promise<Finished> {
  return runProgram(join(testedPrograms, "volantd"), [], { ...house.environment, ...changes });
}

test("a second volantd on the same database is refused", async () => {
  const result = await refusedStart({ VOLANT_API_LISTEN: "127.0.0.1:7778" });
  assertRefused(result, 1, /state\.db.*another volantd|another volantd.*state\.db/);
});

test("a port in use is named", async () => {
  const server = createServer().listen(7779, "127.0.0.1");
  const database = join(house.directory, "port.db");
  const result = await refusedStart({ VOLANT_API_LISTEN: "127.0.0.1:7779", VOLANT_DB_PATH: database });
  assertRefused(result, 1, /127\.0\.0\.1:7779.*in use/);
  await new Promise((resolve) => server.close(resolve));
});

test("a database of a newer schema is refused and left as it is", async () => {
  const path = join(house.directory, "newer.db");
  const database = new DatabaseSync(path);
  database.exec("CREATE TABLE theirs (x); PRAGMA user_version = 9999");
  database.close();
  const before = readFileSync(path);
  const result = await refusedStart({ VOLANT_API_LISTEN: "127.0.0.1:7778", VOLANT_DB_PATH: path });
  assertRefused(result, 1, /newer\.db.*9999/);
  assert.deepEqual(readFileSync(path), before);
});

test("a missing hypervisor is named, with the way to get one", async () => {
  const result = await refusedStart({
    VOLANT_API_LISTEN: "127.0.0.1:7778",
    VOLANT_DB_PATH: join(house.directory, "none.db"),
    VOLANT_HYPERVISOR: "/nonexistent/qemu-system-x86_64",
  });
  assertRefused(result, 1, /\/nonexistent\/qemu-system-x86_64/);
});

test("a bad setting is named with its variable, exit code 2", async () => {
  for (const [name, value] of [
    ["VOLANT_SUBNET", "10.0.0.0/33"],
    ["VOLANT_API_LISTEN", "nowhere"],
    ["VOLANT_HOST_IP", "10.99.0.1"],
    ["VOLANT_BRIDGE", "a/b"],
  ] as const) {
    assertRefused(await refusedStart({ [name]: value }), 2, new RegExp(name));
  }
});

/** A volantd beside the first, in a namespace as it is, tried with one thing missing. */
async function withHouse(env: Record<string, string>, work: (other: House) => Promise<void>): Promise<void> {
  const other = new House({
    VOLANT_API_LISTEN: "127.0.0.1:7780",
    VOLANT_API_BASE: "http://127.0.0.1:7780",
    ...env,
  });
  try {
    await work(other);
  } finally {
    await other.close();
  }
}

test("a missing kernel is said at create, with the command that installs one", async () => {
  await withHouse(
    { VOLANT_SUBNET: "10.78.0.0/24", VOLANT_HOST_IP: "10.78.0.1", VOLANT_BRIDGE: "vbr8" },
    async (other) => {
      rmSync(join(other.directory, "work/kernel"), { recursive: true });
      await other.volarDone("setup", "--service-file", "");
      await other.startVolantd();
      await other.volarDone("plugins", "install", join(pluginDirectory, "manifest.json"));
      assertRefused(await other.volar("vms", "create", "web", "--plugin", "probe"), 1, /kernel install/);
      assert.deepEqual(await other.vms(), []);
    },
  );
});

test("a missing bridge is said at create, with the command that makes it", async () => {
  await withHouse(
    { VOLANT_BRIDGE: "vbr9", VOLANT_SUBNET: "10.79.0.0/24", VOLANT_HOST_IP: "10.79.0.1" },
    async (other) => {
      await other.startVolantd();
      await other.volarDone("plugins", "install", join(pluginDirectory, "manifest.json"));
      assertRefused(await other.volar("vms", "create", "web", "--plugin", "probe"), 1, /vbr9[\s\S]*volar setup/);
      assert.deepEqual(await other.vms(), []);
    },
  );
});

test("a missing /dev/net/tun is said at create", async () => {
  await withHouse(
    { VOLANT_BRIDGE: "vbr9", VOLANT_SUBNET: "10.79.0.0/24", VOLANT_HOST_IP: "10.79.0.1" },
    async (other) => {
      await other.volarDone("setup", "--service-file", "");
      // A mount namespace of volantd's own, in which an empty directory covers /dev/net.
      const empty = join(other.directory, "empty");
      mkdirSync(empty);
      await other.startVolantd([
        "unshare",
        "--mount",
        "--",
        "sh",
        "-c",
        'mount --bind "$1" /dev/net && shift && exec "$@"',
        "sh",
        empty,
      ]);
      await other.volarDone("plugins", "install", join(pluginDirectory, "manifest.json"));
      assertRefused(await other.volar("vms", "create", "web", "--plugin", "probe"), 1, /\/dev\/net\/tun/);
      assert.deepEqual(await other.vms(), []);
    },
  );
});

test("nothing of all this is left in the runtime folder", () => {
  assert.deepEqual(vmEntries(join(house.directory, "run")), []);
});
