/**
 * What is done to a VM while volantd is killed, and what the model says must come of it. A scenario more is an entry more in {@link SCENARIOS}; one that is about
 * something else than the VM {@link NAME} says with `isAccepted` and `clear` what only it knows.
 */
import { execFileSync } from "node:child_process";
import { findProcesses } from "../../vm/house.ts";
import type { StandInHouse } from "../stand-in.ts";
import {
  type DeploymentRow,
  deploymentText,
  type PluginRow,
  pluginText,
  readDeployment,
  readPlugin,
  readRow,
  type Row,
  rowText,
} from "./world.ts";

/** The VM that it is done to. */
export const NAME = "a";
const PORT = 8081;
/** What a guest that is held to its address has in the table: its counter, its map's element, itself, its lease. */
const ENTRY = "entry of 4 elements";

/** All that there is of the VM, as {@link lookAround} says it. */
export type World = readonly string[];

/** A request, or an event; and what there is once it is done. */
export interface Deed {
  /** @param row the VM's, as it was before */
  act(at: StandInHouse, row: Row | undefined): Promise<Response | undefined>;
  readonly world: World;
}

export interface Scenario {
  readonly name: string;
  /** What brings the VM to where the scenario begins. */
  readonly setUp: readonly Deed[];
  /** What volantd dies during; undefined: during its start. */
  readonly deed: Deed["act"] | undefined;
  /** What happens while volantd is dead, before the start that it dies during. */
  readonly meanwhile?: Deed["act"];
  /** Whether the VM's row says that the deed is to be done. What is not to be has left no trace. */
  isAccepted(row: Row | undefined, at: StandInHouse): boolean;
  readonly after: World;
  /**
   * What is told of it, in any order, as type and name; each as often as it stands here. Changes (`…_UPDATED`) that stand here are told once at least: others depend
   * on what is seen in between.
   */
  readonly tells: readonly string[];
  /** Asked once more when all is over; then there must be what there was. */
  readonly again?: Deed["act"];
  /** Takes away what it leaves besides the VM. */
  readonly clear?: Deed["act"];
  /** No other VM may be there. */
  readonly isAlone?: true;
  /** What volantd's environment has besides. */
  readonly environment?: (at: StandInHouse) => Readonly<Record<string, string>>;
}

interface Shape {
  readonly generation?: number;
  readonly ended?: number;
  readonly mode?: "bridged" | "vsock" | "dhcp";
  readonly port?: boolean;
  readonly configs?: number;
  readonly isReserved?: boolean;
  /** It has a vsock device, which a process of its own serves. */
  readonly hasBackend?: boolean;
  readonly restarts?: number;
  readonly failures?: number;
  /** Of a deployment, that version. */
  readonly replica?: number;
}

const kept = ({
  mode = "bridged",
  port = false,
  configs = 1,
  isReserved = false,
  restarts = 0,
  failures = 0,
  replica,
}: Shape): string[] => [
  `configurations: ${configs}`,
  ...(mode === "bridged" ? ["lease"] : []),
  ...(port ? [`port ${PORT} listened on`, `port ${PORT} recorded`] : []),
  ...(isReserved ? ["reserved address"] : []),
  ...(restarts > 0 ? [`restarts: ${restarts}`] : []),
  ...(failures > 0 ? [`failures: ${failures}`] : []),
  ...(replica === undefined ? [] : [`replica of version ${replica}`]),
];

const host = ({ generation = 1, mode = "bridged", hasBackend = false }: Shape): string[] => [
  ...(hasBackend ? [`backend of generation ${generation}`] : []),
  "folder",
  `process of generation ${generation}`,
  ...(mode === "vsock" ? [] : [ENTRY, "tap on vbr0"]),
  ...(mode === "bridged" ? ["neighbour"] : []),
];

const GONE: World = [];

function running(shape: Shape = {}): World {
  const { generation = 1, ended = 0 } = shape;
  const row = {
    desired: "running",
    status: "running",
    generation,
    started: generation,
    running: generation,
    ended,
  } as const;
  return [...kept(shape), ...host(shape), rowText(row)].sort();
}

/** Its agent is silent, or waits for a lease. */
function starting(shape: Shape = {}): World {
  const row = { desired: "running", status: "starting", generation: 1, started: 1, running: 0, ended: 0 } as const;
  return [...kept(shape), ...host(shape), rowText(row)].sort();
}

/** @param run the last generation that was well */
function ended(desired: "running" | "stopped", status: "stopped" | "crashed", run = 1): World {
  const row = { desired, status, generation: 1, started: 1, running: run, ended: 1 } as const;
  return [...kept({}), rowText(row)].sort();
}

const stopped = (): World => ended("stopped", "stopped");
const crashed = (): World => ended("running", "crashed");

/** A deployment that is done with its roll-out, and its replicas. @param versions of its configuration that are remembered */
function deployed(replicas: number, version: number, shape: Shape = {}, versions = 1): World {
  const each = running({ ...shape, replica: version });
  return [deploymentText(replicas, version, version, versions), ...Array(replicas).fill(each).flat()].sort();
}

const BODY = { name: NAME, plugin: "probe", memory_mb: 96 };
const VSOCK = { network: { mode: "vsock" } };
const BRIDGED = { network: { mode: "bridged" } };
/** Nobody on the bridge gives leases. */
const DHCP = { network: { mode: "dhcp" } };
const EXPOSED = { expose: [{ port: 80, host_port: PORT }] };
const ADDRESS = { ip_address: "10.77.0.77" };
const SILENT = { kernel_cmdline: "standin.silent" };
const DEAF = { kernel_cmdline: "standin.ignore_shutdown" };

const create =
  (more: object = {}): Deed["act"] =>
  (at) =>
    at.request("POST", "vms", { ...BODY, ...more });
const verb =
  (name: "start" | "stop" | "restart"): Deed["act"] =>
  (at) =>
    at.request("POST", `vms/${NAME}/${name}`);
const remove: Deed["act"] = (at) => at.request("DELETE", `vms/${NAME}`);
const configure =
  (change: object): Deed["act"] =>
  (at) =>
    at.request("PATCH", `vms/${NAME}/config`, change);

/** Ends the VM's hypervisor as a bug in it would. */
const crash: Deed["act"] = async ({ installation }, row) => {
  for (const pid of findProcesses(`volant:${installation}:${row?.id ?? 0}:`)) process.kill(pid, "SIGKILL");
  return undefined;
};

/** Takes away what the first VM of a host makes for all. */
const forgetPolicy: Deed["act"] = async () => {
  execFileSync("nft", ["delete", "table", "bridge", "volant"]);
  execFileSync("ip", ["link", "delete", "volant-guard"]);
  return undefined;
};

/** The deployment that it is done to. */
const DEPLOYMENT = "d";
const deployments = {
  create:
    (replicas: number): Deed["act"] =>
    (at) =>
      at.request("POST", "deployments", {
        name: DEPLOYMENT,
        replicas,
        min_ready_ms: 0,
        config: { plugin: "probe", resources: { cpu_cores: 1, memory_mb: 96 } },
      }),
  change:
    (patch: object): Deed["act"] =>
    (at) =>
      at.request("PATCH", `deployments/${DEPLOYMENT}`, patch),
  rollBack: ((at) => at.request("POST", `deployments/${DEPLOYMENT}/rollback`, { version: 1 })) as Deed["act"],
  remove: ((at) => at.request("DELETE", `deployments/${DEPLOYMENT}`)) as Deed["act"],
};
const clearDeployment: Deed["act"] = async (at) => {
  if (readDeployment(at) === undefined) return undefined;
  const answer = await deployments.remove(at, undefined);
  // One that was on its way out may be gone by now.
  return answer?.status === 404 ? undefined : answer;
};
/** That it is as this says, or that it is gone. */
const isDeployed =
  (is: (deployment: DeploymentRow | undefined) => boolean): Scenario["isAccepted"] =>
  (_row, at) =>
    is(readDeployment(at));

const withVsockDevices: Scenario["environment"] = (at) => ({
  VOLANT_VSOCK: "on",
  VOLANT_VHOST_DEVICE_VSOCK: at.installVsockBackend(),
});

/** The plugin that it is done to. */
const PLUGIN = "other";
const plugins = {
  /** What the house's own is made of. */
  install: (async (at) => {
    const manifest = await at.request("GET", "plugins/probe/manifest");
    return await at.request("POST", "plugins", { ...((await manifest.json()) as object), name: PLUGIN });
  }) as Deed["act"],
  disable: ((at) => at.request("POST", `plugins/${PLUGIN}/enabled`, { enabled: false })) as Deed["act"],
  remove: ((at) => at.request("DELETE", `plugins/${PLUGIN}`)) as Deed["act"],
};
const clearPlugin: Deed["act"] = (at) =>
  readPlugin(at) === undefined ? Promise.resolve(undefined) : plugins.remove(at, undefined);
const isPlugin =
  (is: (plugin: PluginRow | undefined) => boolean): Scenario["isAccepted"] =>
  (_row, at) =>
    is(readPlugin(at));
const installed: Deed = { act: plugins.install, world: [pluginText(PLUGIN, true)] };

let keys = 0;
/** A key is remembered longer than the VM is there: each run has one of its own, and its repetition the same. */
const createKeyed =
  (isNew: boolean): Deed["act"] =>
  (at) => {
    if (isNew) keys += 1;
    return at.request("POST", "vms", BODY, { "idempotency-key": `create-${keys}` });
  };

const exists = (row: Row | undefined): boolean => row !== undefined;
const isRun = (generation: number) => (row: Row | undefined) => row?.generation === generation;
const isToStop = (row: Row | undefined): boolean => row?.desired === "stopped";
const isToGo = (row: Row | undefined): boolean => row === undefined || row.desired === "absent";
const isConfigured = (row: Row | undefined): boolean => row?.configVersion === 2;
const always = (): boolean => true;

const made: Deed = { act: create(), world: running() };
const madeSilent: Deed = { act: create({ config: SILENT }), world: starting() };
const madeForVsock: Deed = { act: create({ config: VSOCK }), world: running({ mode: "vsock" }) };
const madeForDhcp: Deed = { act: create({ config: DHCP }), world: starting({ mode: "dhcp" }) };
const madeDeaf: Deed = { act: create({ config: DEAF }), world: running() };
const isStopped: Deed = { act: verb("stop"), world: stopped() };
const hasCrashed: Deed = { act: crash, world: crashed() };

const ON_FAILURE = { restart: "on-failure" };
const CHANGED = { config: { env: { A: "1" } } };

/** Ends the hypervisor of a deployment's first replica. */
const crashReplica: Deed["act"] = (at) => crash(at, readRow(at, `${DEPLOYMENT}-1`));

const tells = {
  made: ["VM_CREATED a", "VM_RUNNING a"],
  changed: ["VM_UPDATED a"],
  started: ["VM_UPDATED a", "VM_RUNNING a"],
  stopped: ["VM_STOPPED a"],
  crashed: ["VM_CRASHED a"],
  deleted: ["VM_DELETED a"],
};
const rolledOut = ["DEPLOYMENT_UPDATED d", "VM_UPDATED d-1", "VM_RUNNING d-1", "VM_UPDATED d-2", "VM_RUNNING d-2"];

export const SCENARIOS: readonly Scenario[] = [
  {
    name: "create, the first VM of a host",
    // The guard is there from the first VM on.
    setUp: [made, { act: remove, world: GONE }, { act: forgetPolicy, world: GONE }],
    deed: create(),
    isAccepted: exists,
    tells: tells.made,
    after: running(),
    isAlone: true,
  },
  { name: "create", setUp: [], deed: create(), isAccepted: exists, tells: tells.made, after: running() },
  {
    name: "create with an address of its own",
    setUp: [],
    deed: create({ config: ADDRESS }),
    isAccepted: exists,
    tells: tells.made,
    after: running({ isReserved: true }),
  },
  {
    name: "create with mode vsock and a published port",
    setUp: [],
    deed: create({ config: { ...VSOCK, ...EXPOSED } }),
    isAccepted: exists,
    tells: tells.made,
    after: running({ mode: "vsock", port: true }),
  },
  { name: "stop", setUp: [made], deed: verb("stop"), isAccepted: isToStop, tells: tells.stopped, after: stopped() },
  {
    name: "stop by the power button",
    setUp: [madeSilent],
    deed: verb("stop"),
    isAccepted: isToStop,
    tells: tells.stopped,
    after: ended("stopped", "stopped", 0),
  },
  {
    name: "stop that the guest ignores",
    setUp: [madeDeaf],
    environment: () => ({ VOLANT_STOP_TIMEOUT_MS: "400" }),
    deed: verb("stop"),
    isAccepted: isToStop,
    tells: tells.stopped,
    after: stopped(),
  },
  {
    name: "start",
    setUp: [made, isStopped],
    deed: verb("start"),
    isAccepted: isRun(2),
    tells: tells.started,
    after: running({ generation: 2, ended: 1 }),
  },
  {
    name: "restart",
    setUp: [made],
    deed: verb("restart"),
    isAccepted: isRun(2),
    tells: tells.started,
    after: running({ generation: 2 }),
  },
  {
    name: "restart that takes the network away",
    setUp: [made, { act: configure(VSOCK), world: running({ configs: 2 }) }],
    deed: verb("restart"),
    isAccepted: isRun(2),
    tells: tells.started,
    after: running({ generation: 2, mode: "vsock", configs: 2 }),
  },
  {
    name: "restart that brings a network",
    setUp: [madeForVsock, { act: configure(BRIDGED), world: running({ mode: "vsock", configs: 2 }) }],
    deed: verb("restart"),
    isAccepted: isRun(2),
    tells: tells.started,
    after: running({ generation: 2, configs: 2 }),
  },
  {
    name: "a port is published",
    setUp: [made],
    deed: configure(EXPOSED),
    isAccepted: isConfigured,
    tells: tells.changed,
    after: running({ configs: 2, port: true }),
  },
  { name: "delete", setUp: [made], deed: remove, isAccepted: isToGo, tells: tells.deleted, after: GONE },
  {
    name: "delete of a VM with a published port, by force",
    setUp: [{ act: create({ config: { ...EXPOSED, ...SILENT } }), world: starting({ port: true }) }],
    deed: remove,
    isAccepted: isToGo,
    tells: tells.deleted,
    after: GONE,
  },
  {
    name: "delete of a stopped VM",
    setUp: [made, isStopped],
    deed: remove,
    isAccepted: isToGo,
    tells: tells.deleted,
    after: GONE,
  },
  { name: "a crash", setUp: [made], deed: crash, isAccepted: always, tells: tells.crashed, after: crashed() },
  {
    name: "start of a crashed VM",
    setUp: [made, hasCrashed],
    deed: verb("start"),
    isAccepted: isRun(2),
    tells: tells.started,
    after: running({ generation: 2, ended: 1 }),
  },
  { name: "adoption", setUp: [made], deed: undefined, isAccepted: always, tells: [], after: running() },
  {
    name: "adoption after a crash in the meantime",
    setUp: [made],
    deed: undefined,
    meanwhile: crash,
    isAccepted: always,
    tells: tells.crashed,
    after: crashed(),
  },
  {
    name: "create with a key, and once more",
    setUp: [],
    deed: createKeyed(true),
    again: createKeyed(false),
    isAccepted: exists,
    after: running(),
    tells: tells.made,
  },
  {
    name: "create with a vsock device",
    setUp: [],
    environment: withVsockDevices,
    deed: create(),
    isAccepted: exists,
    after: running({ hasBackend: true }),
    tells: tells.made,
  },
  {
    name: "stop with a vsock device",
    setUp: [{ act: create(), world: running({ hasBackend: true }) }],
    environment: withVsockDevices,
    deed: verb("stop"),
    isAccepted: isToStop,
    after: stopped(),
    tells: tells.stopped,
  },
  {
    name: "create in mode dhcp",
    setUp: [],
    deed: create({ config: DHCP }),
    isAccepted: exists,
    after: starting({ mode: "dhcp" }),
    tells: ["VM_CREATED a"],
  },
  {
    name: "delete in mode dhcp",
    setUp: [madeForDhcp],
    deed: remove,
    isAccepted: isToGo,
    after: GONE,
    tells: tells.deleted,
  },
  {
    name: "a crash, and a restart by policy",
    setUp: [{ act: create({ config: ON_FAILURE }), world: running() }],
    deed: crash,
    isAccepted: always,
    after: running({ generation: 2, ended: 1, restarts: 1, failures: 1 }),
    tells: [...tells.crashed, ...tells.started],
  },
  {
    name: "a crash that is forgotten",
    setUp: [{ act: create({ config: ON_FAILURE }), world: running() }],
    environment: () => ({ VOLANT_RESTART_RESET_MS: "500" }),
    deed: crash,
    isAccepted: always,
    after: running({ generation: 2, ended: 1, restarts: 1 }),
    tells: [...tells.crashed, ...tells.started],
  },
  {
    name: "a crashed VM is given a policy",
    setUp: [made, hasCrashed],
    deed: configure(ON_FAILURE),
    isAccepted: isConfigured,
    after: running({ generation: 2, ended: 1, restarts: 1, failures: 1, configs: 2 }),
    tells: tells.started,
  },
  {
    name: "a plugin is installed",
    setUp: [],
    deed: plugins.install,
    isAccepted: isPlugin((plugin) => plugin !== undefined),
    after: [pluginText(PLUGIN, true)],
    clear: clearPlugin,
    tells: [],
  },
  {
    name: "a plugin is disabled",
    setUp: [installed],
    deed: plugins.disable,
    isAccepted: isPlugin((plugin) => plugin?.isEnabled === false),
    after: [pluginText(PLUGIN, false)],
    clear: clearPlugin,
    tells: [],
  },
  {
    name: "a plugin is removed",
    setUp: [installed],
    deed: plugins.remove,
    isAccepted: isPlugin((plugin) => plugin === undefined),
    after: GONE,
    clear: clearPlugin,
    tells: [],
  },
  {
    name: "a deployment is made",
    setUp: [],
    deed: deployments.create(2),
    isAccepted: isDeployed((row) => row !== undefined),
    after: deployed(2, 1),
    clear: clearDeployment,
    tells: ["DEPLOYMENT_CREATED d", "VM_CREATED d-1", "VM_CREATED d-2", "VM_RUNNING d-1", "VM_RUNNING d-2"],
  },
  {
    name: "a deployment is given one more",
    setUp: [{ act: deployments.create(1), world: deployed(1, 1) }],
    deed: deployments.change({ replicas: 2 }),
    isAccepted: isDeployed((row) => row?.replicas === 2),
    after: deployed(2, 1),
    clear: clearDeployment,
    tells: ["DEPLOYMENT_UPDATED d", "VM_CREATED d-2", "VM_RUNNING d-2"],
  },
  {
    name: "a deployment is given one less",
    setUp: [{ act: deployments.create(2), world: deployed(2, 1) }],
    deed: deployments.change({ replicas: 1 }),
    isAccepted: isDeployed((row) => row?.replicas === 1),
    after: deployed(1, 1),
    clear: clearDeployment,
    tells: ["DEPLOYMENT_UPDATED d", "VM_DELETED d-2"],
  },
  {
    name: "a roll-out",
    setUp: [{ act: deployments.create(2), world: deployed(2, 1) }],
    deed: deployments.change(CHANGED),
    isAccepted: isDeployed((row) => row?.version === 2),
    after: deployed(2, 2, { generation: 2, configs: 2 }, 2),
    clear: clearDeployment,
    tells: rolledOut,
  },
  {
    name: "a rollback",
    setUp: [
      { act: deployments.create(1), world: deployed(1, 1) },
      { act: deployments.change(CHANGED), world: deployed(1, 2, { generation: 2, configs: 2 }, 2) },
    ],
    deed: deployments.rollBack,
    isAccepted: isDeployed((row) => row?.version === 1),
    after: deployed(1, 1, { generation: 3, configs: 3 }, 2),
    clear: clearDeployment,
    tells: ["DEPLOYMENT_UPDATED d", "VM_UPDATED d-1", "VM_RUNNING d-1"],
  },
  {
    name: "a replica's crash",
    setUp: [{ act: deployments.create(1), world: deployed(1, 1) }],
    deed: crashReplica,
    isAccepted: always,
    after: deployed(1, 1, { generation: 2, ended: 1 }),
    clear: clearDeployment,
    tells: ["VM_CRASHED d-1", "VM_UPDATED d-1", "VM_RUNNING d-1"],
  },
  {
    name: "a deployment is deleted",
    setUp: [{ act: deployments.create(2), world: deployed(2, 1) }],
    deed: deployments.remove,
    isAccepted: isDeployed((row) => row?.isDeleting !== false),
    after: GONE,
    clear: clearDeployment,
    tells: ["DEPLOYMENT_DELETED d", "VM_DELETED d-1", "VM_DELETED d-2"],
  },
];
