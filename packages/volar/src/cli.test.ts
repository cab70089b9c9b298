/** The program as a user runs it: child processes against a real API over loopback. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { NumberedVmEvent } from "@volant/contract";
import { parse as parseYaml } from "yaml";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";

const entry = join(import.meta.dirname, "main.ts");
const archive = Buffer.from("a small archive");
const checksum = `sha256:${createHash("sha256").update(archive).digest("hex")}`;

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

let running: RunningApi;
let directory: string;

before(async () => {
  running = await runApi({ apiKey: "k" });
  directory = mkdtempSync(join(tmpdir(), "volar-test-"));
});
after(async () => {
  rmSync(directory, { recursive: true });
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

async function volarWith(env: Record<string, string>, args: readonly string[], input = ""): Promise<Finished> {
  const child = spawn(process.execPath, [entry, ...args], {
    env: { PATH: process.env["PATH"], VOLANT_API_BASE: running.address, VOLANT_API_KEY: "k", ...env },
    cwd: directory,
  });
  child.stdin.on("error", () => undefined).end(input);
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, stdout, stderr };
}
const volar = (...args: string[]): Promise<Finished> => volarWith({}, args);

/** Runs it, which must succeed and say nothing on standard error, where there is no terminal. */
async function done(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await volar(...args);
  assert.deepEqual([code, stderr], [0, ""]);
  return stdout;
}

/** Nothing on standard output; one sentence and at most a hint on standard error. */
function assertRefused({ code, stdout, stderr }: Finished, expected: number, sentence: RegExp): void {
  assert.match(stderr, sentence);
  assert.match(stderr, /^volar: /);
  assert.deepEqual([code, stdout], [expected, ""]);
  assert.ok(stderr.trim().split("\n").length <= 2, stderr);
}

function writePlugin(name: string, changes: Record<string, unknown> = {}): string {
  const folder = join(directory, name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "hello.cpio"), archive);
  const manifest = {
    name,
    version: "1.0.0",
    resources: { cpu_cores: 1, memory_mb: 128 },
    workload: { type: "http", base_url: "http://127.0.0.1:80" },
    initramfs: { url: "hello.cpio" },
    ...changes,
  };
  writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifest));
  return folder;
}

test("a plugin is installed from its folder: its file goes over by digest, the manifest absolute and with its checksum", async () => {
  const folder = writePlugin("hello");
  assert.equal(await done("plugins", "install", folder), "plugin hello 1.0.0 installed\n");
  assert.deepEqual(running.images.get(checksum), archive);
  assert.deepEqual(running.useCases.plugins.get("hello").manifest.initramfs, {
    url: `file://${folder}/hello.cpio`,
    checksum,
  });
});

test("a manifest may name its schema for an editor: volantd gets everything but that", async () => {
  const folder = writePlugin("schemed", { name: "schemed", $schema: "../manifest.schema.json" });
  assert.equal(await done("plugins", "install", folder), "plugin schemed 1.0.0 installed\n");
  assert.equal(Object.hasOwn(running.useCases.plugins.get("schemed").manifest, "$schema"), false);
  await done("plugins", "remove", "schemed");
});

test("installing it again says that it exists; --replace leaves the same one alone and puts a changed one in its place", async () => {
  const path = join(writePlugin("hello"), "manifest.json");
  assertRefused(await volar("plugins", "install", path), 1, /plugin "hello" exists already/);
  assert.match(await done("plugins", "install", "--replace", path), /installed already/);
  writePlugin("hello", { version: "2.0.0" });
  assert.equal(await done("plugins", "install", path, "--replace"), "plugin hello 2.0.0 installed\n");
});

const mistakes: Record<string, [changes: Record<string, unknown>, sentence: RegExp]> = {
  "an unknown field": [{ colour: "blue" }, /unknown field "colour"/],
  "a schema that is no text": [{ $schema: 1 }, /\$schema.* must be text/],
  "a missing file": [
    { initramfs: { url: "absent.cpio" } },
    /absent\.cpio \(initramfs of the manifest\): there is no such file/,
  ],
  "a folder for a file": [{ initramfs: { url: "." } }, /is not a regular file/],
  "a wrong checksum": [
    { initramfs: { url: "hello.cpio", checksum: `sha256:${"0".repeat(64)}` } },
    /hello\.cpio .* has the checksum sha256:[0-9a-f]{64} and not sha256:0{64}/,
  ],
  "an address of no known kind": [{ initramfs: { url: "ftp://x/y" } }, /"ftp:\/\/x\/y" is neither/],
  "a file address of another machine": [{ initramfs: { url: "file://other/x" } }, /no file of this machine/],
  "a name with a slash": [{ name: "a/b" }, /plugin name "a\/b" must not contain/],
};
for (const [what, [changes, sentence]] of Object.entries(mistakes)) {
  test(`a manifest with ${what} is refused with exit code 2, and nothing is sent`, async () => {
    running.images.clear();
    const folder = writePlugin("mistaken", changes);
    assertRefused(await volar("plugins", "install", folder), 2, sentence);
    assert.equal(running.images.size, 0);
    assert.ok(!running.useCases.plugins.list().some((plugin) => plugin.name === "mistaken"));
  });
}

test("a manifest that is missing or no JSON is named", async () => {
  assertRefused(
    await volar("plugins", "install", "nowhere.json"),
    2,
    /cannot read nowhere\.json: there is no such file/,
  );
  writeFileSync(join(directory, "broken.json"), "{");
  assertRefused(await volar("plugins", "install", "broken.json"), 2, /broken\.json is not JSON/);
});

test("plugins are listed, shown, disabled, enabled and removed", async () => {
  assert.equal(await done("plugins", "list"), "NAME   VERSION  ENABLED\nhello  2.0.0    yes\n");
  assert.match(await done("plugins", "show", "hello"), /^version: +2\.0\.0$/m);
  assert.equal(await done("plugins", "disable", "hello"), "plugin hello disabled\n");
  assert.deepEqual(JSON.parse(await done("plugins", "list", "--output", "json")), [
    { name: "hello", version: "2.0.0", enabled: false },
  ]);
  assert.equal(await done("plugins", "enable", "hello"), "plugin hello enabled\n");
  assertRefused(await volar("plugins", "remove", "nope"), 1, /"nope"/);
});

test("a VM is created with its flags and the configuration file, flags winning", async () => {
  const config = JSON.stringify({ env: { A: "file", B: "file" }, network: { mode: "dhcp", bridge: "br1" } });
  const args = ["vms", "create", "web-1", "--plugin", "hello", "--cpu", "2", "--memory", "1G", "--env", "A=flag=x"];
  const created = await volarWith({}, [...args, "--network", "bridged", "--config", "-", "--output", "json"], config);
  assert.equal(created.code, 0, created.stderr);
  const vm = JSON.parse(created.stdout) as Record<string, unknown>;
  assert.deepEqual([vm["name"], vm["cpu_cores"], vm["memory_mb"], vm["status"]], ["web-1", 2, 1024, "pending"]);
});

test("VMs are printed as a table, as JSON and as YAML, wherever the flag stands", async () => {
  assert.equal(
    await done("vms", "list"),
    "NAME   STATUS   PLUGIN  ADDRESS        CPU  MEMORY    PORTS\nweb-1  pending  hello   192.168.127.2  2    1024 MiB  -\n",
  );
  const json = JSON.parse(await done("--output", "json", "vms", "list")) as { name: string }[];
  assert.deepEqual(
    json.map((vm) => vm.name),
    ["web-1"],
  );
  assert.deepEqual(parseYaml(await done("vms", "list", "--output=yaml")), json);
  assert.match(await done("vms", "get", "web-1"), /^address: +192\.168\.127\.2$/m);
  assert.deepEqual(JSON.parse(await done("vms", "list", "--status", "running,stopped", "--output", "json")), []);
});

test("--quiet prints names only, of one and of many, of what was done and of what happened", async () => {
  assert.equal(await done("vms", "list", "--quiet"), "web-1\n");
  assert.equal(await done("-q", "vms", "get", "web-1"), "web-1\n");
  assert.deepEqual(JSON.parse(await done("vms", "list", "-q", "--output", "json")), ["web-1"]);
  assert.equal(await done("plugins", "list", "-q"), "hello\n");
  assert.equal(await done("vms", "config", "get", "web-1", "-q"), "web-1\n");
  assert.equal(await done("vms", "config", "history", "web-1", "-q"), "1\n");
  assert.equal(await done("vms", "create", "brief", "-q"), "brief\n");
  assert.equal(await done("vms", "delete", "brief", "-q"), "brief\n");
  assert.equal(await done("events", "--no-follow", "--vm", "brief", "-q"), "brief\n".repeat(2));
  assert.equal(await done("version", "-q"), "0.1.0\n");
});

test("a configuration is set by flags, which leave alone what they don't name, and by a patch from a file", async () => {
  const set = (...args: string[]) => done("vms", "config", "set", "c", ...args, "--output", "json");
  const flags = [
    "--cpu",
    "2",
    "--env",
    "A=1",
    "--network",
    "dhcp",
    "--ip",
    "192.168.127.9",
    "--mac",
    "02:00:00:00:00:07",
  ];
  await done("vms", "create", "c", "--plugin", "hello", ...flags);
  const config = async () =>
    (JSON.parse(await done("vms", "config", "get", "c", "--output", "json")) as { config: object }).config;
  assert.deepEqual(await config(), {
    env: { A: "1" },
    network: { mode: "dhcp" },
    ip_address: "192.168.127.9",
    mac_address: "02:00:00:00:00:07",
  });
  await set("--memory", "1G", "--env", "B=2");
  await set("--cpu", "3", "--network", "vsock", "--ip", "none");
  assert.deepEqual(await config(), {
    env: { A: "1", B: "2" },
    network: { mode: "vsock" },
    ip_address: "",
    mac_address: "02:00:00:00:00:07",
    resources: { memory_mb: 1024, cpu_cores: 3 },
  });
  const patched = await volarWith({}, ["vms", "config", "set", "c", "--config", "-"], '{"env": {"C": "3"}}');
  assert.equal(patched.code, 0, patched.stderr);
  assert.match(patched.stdout, /^version: +4\n[\s\S]*"C": "3"/);
  assert.doesNotMatch(patched.stdout, /"A"/);
  assert.match(await done("vms", "config", "history", "c", "--limit", "1"), /^VERSION .*\n4 .*"C":"3".*\n$/);
  running.move("c", "running");
  assert.match(await done("vms", "config", "set", "c", "--cpu", "1"), /^pending: .*from the next start$/m);
  assertRefused(await volar("vms", "config", "set", "c"), 2, /nothing is to be changed/);
  assertRefused(await volar("vms", "config", "get", "nobody"), 1, /"nobody"/);
  await done("vms", "delete", "c");
});

async function whenWaited(work: () => void): Promise<void> {
  while (running.feed.readers === 0) await new Promise(setImmediate);
  work();
}

test("--wait returns the VM when it runs, and fails with the reason when it crashes", async () => {
  const waiting = done("vms", "create", "w", "--wait=60", "--output", "json");
  await whenWaited(() => running.move("w", "running"));
  assert.equal((JSON.parse(await waiting) as { status: string }).status, "running");
  const crashing = volar("vms", "restart", "w", "--wait");
  while (running.useCases.vms.get("w").status !== "pending") await new Promise(setImmediate);
  await whenWaited(() => running.move("w", "crashed", "kernel panic"));
  assertRefused(await crashing, 1, /VM "w" is crashed and not running: kernel panic/);
  assert.match(await done("vms", "wait", "w", "--status", "crashed"), /crashed \(kernel panic\)/);
  assertRefused(
    await volar("vms", "start", "w", "--wait=0.05s"),
    1,
    /VM "w" is not running after 0\.1 s: it is pending/,
  );
});

test("a restart policy is set and shown; --no-wait and --timeout are taken where something is waited for", async () => {
  await done("vms", "create", "again", "--restart", "on-failure");
  const state = JSON.parse(await done("vms", "config", "set", "again", "--restart", "always", "--output", "json")) as {
    config: { restart: string };
  };
  assert.equal(state.config.restart, "always");
  assertRefused(await volar("vms", "create", "x", "--restart", "sometimes"), 2, /on-failure/);
  running.move("again", "running");
  assert.match(await done("vms", "stop", "again", "--no-wait"), /status: +running/);
  assert.match(await done("vms", "stop", "again", "--wait", "--timeout", "30"), /status: +stopped/);
  assert.equal(await done("vms", "delete", "again", "--no-wait"), "again is being deleted\n");
  assert.equal(await done("vms", "delete", "again", "--timeout", "30s"), "again deleted\n");
});

test("a VM is stopped; several are deleted at once, and one that is missing does not keep the others", async () => {
  assert.match(await done("vms", "stop", "w"), /^status: +stopped$/m);
  const { code, stdout, stderr } = await volar("vms", "delete", "w", "nope", "web-1");
  assert.deepEqual([code, stdout], [1, "w deleted\nweb-1 deleted\n"]);
  assert.equal(stderr, 'volar: there is no VM "nope"\n  volar vms list shows what there is\n');
});

test("bad names and flags are usage errors in one sentence", async () => {
  for (const name of ["a/b", "a,b", "a b", "", "x".repeat(300)]) {
    assertRefused(await volar("vms", "create", name), 2, /name/);
  }
  assertRefused(await volar("vms", "create"), 2, /missing required argument 'name'\n  volar vms create --help shows/);
  assertRefused(await volar("vms", "create", "a", "--cpu", "0"), 2, /'--cpu <cores>' argument '0' is invalid/);
  assertRefused(await volar("vms", "create", "a", "--env", "novalue"), 2, /KEY=VALUE/);
  assertRefused(await volar("vms", "create", "a", "--wait=soon"), 2, /'soon' is invalid/);
  assertRefused(await volar("vms", "create", "a", "--config", "absent.json"), 2, /absent\.json: there is no such file/);
  assertRefused(await volar("vms", "list", "--output", "xml"), 2, /Allowed choices are table, json, yaml/);
  assertRefused(await volar("vms", "lst"), 2, /unknown command 'lst'\n  did you mean list or ls\?/);
  assertRefused(await volar("vmz"), 2, /unknown command 'vmz'\n  did you mean vms\?/);
  assertRefused(await volar("create", "a"), 2, /unknown command 'create'\n {2}did you mean volar vms create\?/);
  assertRefused(await volar("vms", "list", "--outptu", "json"), 2, /'--outptu'\n {2}did you mean --output\?/);
  assertRefused(await volar("vms", "list", "--api", "nonsense"), 2, /"nonsense" is no URL/);
  assert.deepEqual(running.useCases.vms.list({}).vms, []);
});

test("where answers are for programs, so are errors: a document each, with its code and hint, on standard error", async () => {
  const missing = { error: 'there is no VM "nope"', code: "not_found", hint: "volar vms list shows what there is" };
  const one = await volar("vms", "get", "nope", "--output", "json");
  assert.deepEqual([one.code, one.stdout, JSON.parse(one.stderr)], [1, "", missing]);
  const yaml = await volar("--output", "yaml", "vms", "get", "nope");
  assert.deepEqual([yaml.code, yaml.stdout, parseYaml(yaml.stderr)], [1, "", missing]);
  const several = await volar("vms", "delete", "nope", "neither", "--output=json");
  const told = several.stderr.trimEnd().split("\n");
  assert.deepEqual(
    told.map((line) => (JSON.parse(line) as { code: string }).code),
    ["not_found", "not_found"],
  );
  const usages: readonly (readonly [string[], string, string])[] = [
    [["vms", "lst"], "unknown command 'lst'", "did you mean list or ls?"],
    [["vms", "get"], "missing required argument 'vm'", "volar vms get --help shows what it takes"],
    [["create", "a"], "unknown command 'create'", "did you mean volar vms create?"],
  ];
  for (const [words, error, hint] of usages) {
    const { code, stdout, stderr } = await volar(...words, "--output", "json");
    assert.deepEqual([code, stdout, JSON.parse(stderr)], [2, "", { error, code: "invalid", hint }]);
  }
  assert.match((await volar("vms", "--output", "json")).stderr, /^Usage: volar vms/);
});

test("help and versions are no failures, and the version needs no volantd", async () => {
  assert.match(await done("--help"), /plugins +install and manage/);
  assert.match(await done("help", "vms"), /create \[options\] <name>/);
  assert.match(await done("--version"), /^\d+\.\d+\.\d+\n$/);
  assert.deepEqual(JSON.parse(await done("version", "--output", "json")), {
    client: "0.1.0",
    server: "0.1.0",
    api: running.address,
  });
  const { code, stdout } = await volar("version", "--api", "http://127.0.0.1:9");
  assert.equal(code, 0);
  assert.match(stdout, /volantd: +unknown: volantd does not answer at http:\/\/127\.0\.0\.1:9/);
  assert.equal((await volar("vms")).code, 2, "a noun alone is no command");
});

test("a volantd that does not answer and a wrong key are told in one sentence", async () => {
  assertRefused(
    await volar("vms", "list", "-a", "http://127.0.0.1:9"),
    1,
    /does not answer at http:\/\/127\.0\.0\.1:9: is it/,
  );
  assertRefused(await volar("vms", "list", "--api-key", "wrong"), 1, /key is wrong/);
});

test("events are followed, one JSON document a line", async () => {
  const child = spawn(process.execPath, [entry, "events", "--vm", "e", "--output", "json"], {
    env: { ...process.env, VOLANT_API_BASE: running.address, VOLANT_API_KEY: "k" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  await whenWaited(() => undefined);
  for (const name of ["other", "e"]) await running.useCases.vms.create({ name });
  const [line] = (await child.stdout.setEncoding("utf8").take(1).toArray()) as [string];
  assert.deepEqual(
    [(JSON.parse(line) as { type: string; name: string }).type, (JSON.parse(line) as { name: string }).name],
    ["VM_CREATED", "e"],
  );
  child.kill();
  await ended;
});

test("what happened is shown, the oldest first, by VM, type, time and id", async () => {
  for (const name of ["past-1", "past-2"]) await running.useCases.vms.create({ name });
  running.move("past-1", "crashed", "kernel panic");
  const lines = async (...flags: string[]) => {
    const { code, stdout } = await volar("events", "--no-follow", "--output", "json", ...flags);
    assert.equal(code, 0);
    return stdout.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as NumberedVmEvent]));
  };
  const mine = await lines("--vm", "past-1", "--vm", "past-2");
  assert.deepEqual(
    mine.map(({ name, type }) => `${name} ${type}`),
    ["past-1 VM_CREATED", "past-2 VM_CREATED", "past-1 VM_CRASHED"],
  );
  const [first, ...others] = mine;
  assert.deepEqual(await lines("--vm", "past-1", "--vm", "past-2", "--after", String(first?.id)), others);
  assert.deepEqual(await lines("--type", "crashed", "--vm", "past-1", "--since", "2020-01-01"), mine.slice(2));
  assert.deepEqual(await lines("--limit", "1", "--vm", "past-2"), mine.slice(1, 2));
  const text = await volar("events", "--no-follow", "--vm", "past-1");
  assert.match(text.stdout, /^\S+Z VM_CREATED past-1 pending\n\S+Z VM_CRASHED past-1 crashed kernel panic\n$/);
});

test("a question about events that can't be answered is refused in one sentence", async () => {
  for (const [flags, sentence] of [
    [["--since", "yesterday"], /so long ago, such as 30m/],
    [["--since", "1h", "--after", "3"], /cannot be used with/],
    [["--no-follow", "--type", "log"], /lines of logs are not kept among the events/],
    [["--no-follow", "--type", "exploded"], /VM_EXPLODED|type/],
    [["--no-follow", "--vm", "a/b"], /must not contain "\/"/],
  ] as const) {
    const { code, stderr } = await volar("events", ...flags);
    assert.notEqual(code, 0);
    assert.match(stderr, sentence);
  }
});

test("a name that does not exist brings the nearest live one, be it a VM's, a plugin's or a deployment's", async () => {
  await running.useCases.vms.create({ name: "frontend" });
  await running.useCases.deployments.create({ name: "shop", config: { plugin: "hello" } });
  assertRefused(await volar("vms", "get", "fronted"), 1, /no VM "fronted"\n {2}did you mean frontend\?/);
  assertRefused(await volar("vms", "logs", "forntend"), 1, /\n {2}did you mean frontend\?/);
  assertRefused(await volar("vms", "cp", "frontent:/etc/hosts", "x"), 1, /\n {2}did you mean frontend\?/);
  assertRefused(await volar("vms", "create", "x", "--plugin", "helo"), 1, /"helo"\n {2}did you mean hello\?/);
  assertRefused(await volar("plugins", "show", "helllo"), 1, /\n {2}did you mean hello\?/);
  assertRefused(await volar("deployments", "get", "shpo"), 1, /\n {2}did you mean shop\?/);
  assertRefused(await volar("vms", "scale", "shpo", "--replicas", "2"), 1, /\n {2}did you mean shop\?/);
  await running.useCases.deployments.delete("shop");
  await running.useCases.vms.delete("frontend");
});

test("exec, shell and forward say what keeps them from beginning", async () => {
  assertRefused(await volar("vms", "exec", "nobody", "--", "true"), 1, /no VM "nobody"/);
  assertRefused(await volar("vms", "shell", "web-1"), 2, /needs a terminal/);
  assertRefused(await volar("vms", "forward", "nobody", "0:80"), 1, /no VM "nobody"/);
  for (const pair of ["80", "a:b", "1:0", "70000:1"]) {
    const { code, stderr } = await volar("vms", "forward", "web-1", pair);
    assert.equal(code, 2);
    assert.match(stderr, /<host port>:<guest port>/);
  }
});
