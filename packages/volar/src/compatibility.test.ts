/** docs/compatibility.md has a row for every route, flag, field and variable of v1, true of what there is, with a test that exists. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import {
  AGENT_PATH,
  CreateVmRequest,
  ENDPOINTS,
  Manifest,
  SOCKET_ENDPOINTS,
  STREAM_ENDPOINTS,
  VmConfig,
} from "@volant/contract";
import type { Command } from "commander";
import { processIo } from "./io.ts";
import { createProgram } from "./program.ts";

const root = join(import.meta.dirname, "../../..");
const guide = readFileSync(join(root, "docs/compatibility.md"), "utf8");
const settings = readFileSync(join(root, "docs/settings.md"), "utf8");

interface Row {
  readonly section: string;
  /** Code of the first cell. */
  readonly what: string;
  readonly state: string;
  readonly file: string;
  readonly proof: string;
}

const rows: readonly Row[] = guide.split("\n## ").flatMap((text) => {
  const section = text.split("\n", 1)[0] ?? "";
  const lines = text.split("\n").filter((line) => line.startsWith("| `"));
  return lines.map((line) => {
    const [what = "", state = "", proof = ""] = line
      .slice(1, -1)
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim().replaceAll("\\|", "|"));
    const [, file = "", name = ""] = /^`([^`]+)`: (.+)$/.exec(proof) ?? [];
    return { section, what: what.slice(1, -1), state, file, proof: name };
  });
});
const of = (section: string): readonly Row[] => rows.filter((row) => row.section === section);
const STATES = ["yes", "fixed", "refused"];

test("every row says how it is, and names a test that is there", () => {
  assert.ok(rows.length > 150);
  for (const { section, what, state, file, proof } of rows) {
    const where = `${section}: ${what}`;
    assert.ok(STATES.includes(state.split(":")[0] ?? ""), `${where}: ${state}`);
    assert.ok(file !== "" && existsSync(join(root, file)), `${where}: ${file}`);
    const text = readFileSync(join(root, file), "utf8");
    const isThere = file.endsWith(".rs")
      ? text.includes(`fn ${proof}()`)
      : text.includes(`("${proof}"`) || text.includes(`(\`${proof}\``);
    assert.ok(isThere, `${where}: ${file} has no test ${JSON.stringify(proof)}`);
  }
});

/** v1's, apart from those that both have by the table of routes. */
const V1_ROUTES: readonly string[] = [
  "GET /healthz",
  "GET /openapi",
  "GET /api/v1/system/status",
  "GET /api/v1/system/info",
  "GET /api/v1/system/summary",
  "GET /api/v1/vms",
  "POST /api/v1/vms",
  "GET /api/v1/vms/:name",
  "DELETE /api/v1/vms/:name",
  "GET /api/v1/vms/:name/config",
  "PATCH /api/v1/vms/:name/config",
  "GET /api/v1/vms/:name/config/history",
  "POST /api/v1/vms/:name/start",
  "POST /api/v1/vms/:name/stop",
  "POST /api/v1/vms/:name/restart",
  "GET /api/v1/vms/:name/openapi",
  "ANY /api/v1/vms/:name/agent/*",
  "POST /api/v1/vms/:name/actions/:plugin/:action",
  "GET /api/v1/deployments",
  "POST /api/v1/deployments",
  "GET /api/v1/deployments/:name",
  "PATCH /api/v1/deployments/:name",
  "DELETE /api/v1/deployments/:name",
  "GET /api/v1/plugins",
  "POST /api/v1/plugins",
  "GET /api/v1/plugins/:plugin",
  "DELETE /api/v1/plugins/:plugin",
  "GET /api/v1/plugins/:plugin/manifest",
  "POST /api/v1/plugins/:plugin/enabled",
  "POST /api/v1/plugins/:plugin/actions/:action",
  "GET /api/v1/plugins/:plugin/artifacts",
  "POST /api/v1/plugins/:plugin/artifacts",
  "DELETE /api/v1/plugins/:plugin/artifacts",
  "GET /api/v1/plugins/:plugin/artifacts/:artifact",
  "GET /api/v1/events/vms",
  "GET /ws/v1/vms/:name/console",
  "GET /ws/v1/vms/:name/logs",
  "POST /api/v1/mcp",
  ...["info", "validate", "iommu-groups", "bind", "unbind", "group-paths"].map(
    (verb) => `POST /api/v1/vfio/devices/${verb}`,
  ),
];

test("every route of v1 has its row, and is there", () => {
  const listed = of("Routes").map(({ what }) => what);
  assert.deepEqual(listed, V1_ROUTES);
  const there = new Set([
    `ANY ${AGENT_PATH}/*`,
    ...[ENDPOINTS, STREAM_ENDPOINTS, SOCKET_ENDPOINTS].flatMap((table) =>
      Object.values(table).map(({ method, path }) => `${method} ${path}`),
    ),
  ]);
  for (const { what, state } of of("Routes")) assert.ok(there.has(what) && !state.startsWith("refused"), what);
});

interface PlainSchema {
  readonly properties?: Readonly<Record<string, PlainSchema>>;
  readonly patternProperties?: Readonly<Record<string, PlainSchema>>;
  readonly items?: PlainSchema;
}

/** Paths of a schema's fields; what is inside of `whole` is not looked at. */
function fieldPaths(schema: PlainSchema, at: string, whole: readonly string[]): string[] {
  if (schema.items !== undefined) return fieldPaths(schema.items, `${at}[]`, whole);
  const parts = [
    ...Object.entries(schema.properties ?? {}).map(
      ([name, part]) => [at === "" ? name : `${at}.${name}`, part] as const,
    ),
    ...Object.values(schema.patternProperties ?? {}).flatMap((part) =>
      part.properties === undefined ? [] : [[`${at}.*`, part] as const],
    ),
  ];
  if (parts.length === 0) return [at.replace(/\[\]$/, "")];
  return parts.flatMap(([path, part]) => (whole.includes(path) ? [path] : fieldPaths(part, path, whole)));
}

const plain = (schema: object): PlainSchema => JSON.parse(JSON.stringify(schema)) as PlainSchema;

test("every field of a manifest has its row", () => {
  const paths = fieldPaths(plain(Manifest), "", ["rootfs", "disks", "cloud_init", "devices"]);
  assert.deepEqual(
    of("Manifest")
      .map(({ what }) => what)
      .toSorted(),
    paths.toSorted(),
  );
});

test("every field of a VM's configuration, and of the request that makes it, has its row", () => {
  const paths = fieldPaths(plain(VmConfig), "", [
    "manifest",
    "network",
    "policy",
    "initramfs",
    "rootfs",
    "cloud_init",
    "devices",
  ]);
  const request = fieldPaths(plain(CreateVmRequest), "", ["config"]);
  assert.deepEqual(
    of("A VM's configuration")
      .map(({ what }) => what)
      .toSorted(),
    paths.toSorted(),
  );
  assert.deepEqual(
    of("Creating a VM")
      .map(({ what }) => what)
      .toSorted(),
    request.toSorted(),
  );
});

/** The command that these words name. */
async function commandOf(words: readonly string[]): Promise<Command | undefined> {
  let command: Command | undefined = await createProgram(words, processIo());
  for (const word of words) command = command?.commands.find((each) => each.name() === word);
  return command;
}

test("every command and flag of v1 has its row, and is one of volar's", async () => {
  const commands = of("volar").map(({ what }) => what);
  for (const required of V1_COMMANDS) assert.ok(commands.includes(required), required);
  for (const what of commands) {
    const words = what.split(" ");
    const flag = words.find((word) => word.startsWith("-"));
    const command = await commandOf(words.filter((word) => !word.startsWith("-")).slice(1));
    assert.ok(command !== undefined, `${what} is no command`);
    if (flag === undefined) continue;
    assert.ok(
      command.options.some(({ long, short }) => long === flag || short === flag),
      `${what}: there is no such flag`,
    );
  }
});

const flagged = (command: string, flags: string) => flags.split(" ").map((flag) => `volar ${command} --${flag}`);

const V1_COMMANDS: readonly string[] = [
  "volar --api",
  "volar -a",
  "volar --api-key",
  "volar --output",
  ...["list", "get", "create", "delete", "start", "stop", "restart", "scale", "console", "operations", "call"].map(
    (verb) => `volar vms ${verb}`,
  ),
  ...flagged(
    "vms create",
    "plugin runtime cpu memory kernel-cmdline kernel initramfs initramfs-checksum config api-host api-port device device-allowlist network wait",
  ),
  ...flagged("vms scale", "cpu memory restart replicas"),
  ...["get", "set", "history"].map((verb) => `volar vms config ${verb}`),
  ...flagged("vms call", "query body body-file timeout"),
  ...["list", "show", "install", "enable", "disable", "remove"].map((verb) => `volar plugins ${verb}`),
  ...["list", "create", "get", "delete", "scale"].map((verb) => `volar deployments ${verb}`),
  ...flagged("deployments create", "config replicas"),
  "volar setup",
  ...flagged("setup", "bridge subnet host-ip runtime-dir log-dir work-dir bzimage vmlinux service-file dry-run"),
  "volar version",
];

const V1_VARIABLES: readonly string[] = [
  ..."API_LISTEN API_ADVERTISE API_KEY API_ALLOW_CIDR CORS_ORIGINS BRIDGE SUBNET HOST_IP RUNTIME_DIR LOG_DIR DB_PATH".split(
    " ",
  ),
  ..."WORK_DIR KERNEL_BZIMAGE KERNEL_VMLINUX HYPERVISOR NETWORK DNS API_BASE".split(" "),
].map((name) => `VOLANT_${name}`);

test("every variable of v1 has its row, and is one that settings.md knows", () => {
  assert.deepEqual(
    of("Environment").map(({ what }) => what),
    V1_VARIABLES,
  );
  for (const name of V1_VARIABLES) assert.ok(settings.includes(`\`${name}\``), name);
});

const V1_ANSWERS =
  "vm vm-config vm-config-version vm-event vm-log-line deployment plugin plugin-artifact system-info system-summary error".split(
    " ",
  );

test("every resource of v1 has its row and its example, and so have the headers", () => {
  const headers = ["X-Total-Count", "X-Volant-API-Key", "Last-Event-ID"];
  assert.deepEqual(
    of("Answers").map(({ what }) => what),
    [...V1_ANSWERS, ...headers],
  );
  for (const name of V1_ANSWERS) assert.ok(existsSync(join(root, `packages/contract/golden/${name}.json`)), name);
});

test("every key of the guest's command line has its row", () => {
  const keys = "runtime plugin api_host api_port rootfs_device rootfs_fstype boot manifest".split(" ");
  assert.deepEqual(
    of("The guest's command line").map(({ what }) => what),
    ["ip=", ...keys.map((key) => `volant.${key}`)],
  );
});
