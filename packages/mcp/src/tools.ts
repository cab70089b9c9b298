/**
 * The tools, each one route of the API: the one definition for HTTP, stdio and the v1 envelope. A route's schemas are a tool's, so that neither can take what
 * the other refuses.
 */
import { DeploymentPatch, VmConfig, type RouteId } from "@volant/contract";
import { Type, type TObject } from "typebox";
import { inputOf } from "./tool-input.ts";

/** What a tool does to what is there. */
export type ToolEffect = "reads" | "adds" | "changes" | "destroys";

export interface Tool {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly route: RouteId;
  readonly input: TObject;
  readonly effect: ToolEffect;
  /** A second call with the same arguments changes nothing more. */
  readonly isIdempotent: boolean;
  /** It runs what somebody else has written, which may do anything inside the guest. */
  readonly isOpen: boolean;
  /** Arguments of a call that does not give them. */
  readonly defaults: Readonly<Record<string, unknown>>;
  /** What an answer that is no object stands under. */
  readonly answerName?: string;
}

type ToolGiven = Pick<Tool, "name" | "title" | "description" | "route" | "effect"> &
  Partial<Omit<Tool, "name" | "title" | "description" | "route" | "effect">>;

function tool(given: ToolGiven): Tool {
  const { route, effect } = given;
  const isIdempotent = effect === "reads";
  return { input: inputOf(route), isIdempotent, isOpen: false, defaults: {}, ...given };
}

/** What is not asked for is not told: lists and logs grow, and whoever reads the answers has little room. */
const LINES = 100;
const MAX_LINES = 1000;
const LIST_LIMIT = 100;

const lines = Type.Optional(
  Type.Integer({ minimum: 1, maximum: MAX_LINES, description: `How many of the last lines; default ${LINES}` }),
);

/** A manifest in a configuration would be half of what all tools say together: who has one installs a plugin. */
const configWithoutManifest = Type.Omit(VmConfig, ["manifest"], { additionalProperties: false });

const waits =
  'Give wait, such as "60s", to be answered with the outcome; else it is answered at once and the rest follows.';

export const TOOLS: readonly Tool[] = [
  tool({
    name: "system_summary",
    title: "Summary of the host",
    description: "How many VMs there are by status and by runtime, and which plugins are installed. A good first call.",
    route: "system.summary",
    effect: "reads",
  }),
  tool({
    name: "system_info",
    title: "The host",
    description: "Version, addresses, network and hypervisor of the host.",
    route: "system.info",
    effect: "reads",
  }),
  tool({
    name: "vms_list",
    title: "List VMs",
    description: `VMs with their status, addresses and resources; total counts all that match. At most ${LIST_LIMIT} unless limit says more; offset leads to the next ones.`,
    route: "vms.list",
    effect: "reads",
    defaults: { limit: LIST_LIMIT },
    answerName: "vms",
  }),
  tool({
    name: "vms_get",
    title: "Show a VM",
    description: "One VM: its status and the reason for it, network, agent and resources.",
    route: "vms.get",
    effect: "reads",
  }),
  tool({
    name: "vms_create",
    title: "Create a VM",
    description: `Makes a VM from an installed plugin and starts it. ${waits} An outcome may be "crashed": reason, vms_console and vms_logs say why.`,
    route: "vms.create",
    input: inputOf("vms.create", { instead: { config: Type.Optional(configWithoutManifest) } }),
    effect: "adds",
  }),
  tool({
    name: "vms_start",
    title: "Start a VM",
    description: `Starts a VM that is stopped or crashed. ${waits}`,
    route: "vms.start",
    effect: "changes",
  }),
  tool({
    name: "vms_stop",
    title: "Stop a VM",
    description: "Shuts a VM down, and answers when it is stopped. What its guest held in memory is lost.",
    route: "vms.stop",
    effect: "destroys",
    isIdempotent: true,
  }),
  tool({
    name: "vms_restart",
    title: "Restart a VM",
    description: `Shuts a VM down and starts it again. What its guest held in memory is lost. ${waits}`,
    route: "vms.restart",
    effect: "destroys",
  }),
  tool({
    name: "vms_delete",
    title: "Delete a VM",
    description: "Deletes a VM with all that it has, and answers when nothing of it is left. It can't be undone.",
    route: "vms.delete",
    effect: "destroys",
  }),
  tool({
    name: "vms_exec",
    title: "Run a program in a VM",
    description:
      'Runs a program inside a running VM to its end, and gives its exit code and output. No shell is involved: for one, run ["sh", "-c", "…"], where the guest has it.',
    route: "vms.run",
    effect: "destroys",
    isOpen: true,
  }),
  tool({
    name: "vms_logs",
    title: "Read a VM's log",
    description: "The last lines that a VM's workload has printed, also when the VM is stopped.",
    route: "vms.logs",
    effect: "reads",
    input: inputOf("vms.logs", { without: ["follow"], instead: { tail: lines } }),
    defaults: { tail: LINES },
    answerName: "lines",
  }),
  tool({
    name: "vms_console",
    title: "Read a VM's console",
    description: "The last lines of a VM's serial console: what its kernel said. It may tell why a VM does not start.",
    route: "vms.console.tail",
    effect: "reads",
  }),
  tool({
    name: "plugins_list",
    title: "List plugins",
    description: "Names of the installed plugins: what VMs can be made from.",
    route: "plugins.list",
    effect: "reads",
  }),
  tool({
    name: "plugins_show",
    title: "Show a plugin",
    description: "A plugin and its manifest: what it runs, with which resources.",
    route: "plugins.get",
    effect: "reads",
  }),
  tool({
    name: "deployments_list",
    title: "List deployments",
    description: "Deployments, each so many VMs alike, with how many of them are ready.",
    route: "deployments.list",
    effect: "reads",
    answerName: "deployments",
  }),
  tool({
    name: "deployments_get",
    title: "Show a deployment",
    description: "One deployment, and how far its roll-out is.",
    route: "deployments.get",
    effect: "reads",
  }),
  tool({
    name: "deployments_create",
    title: "Create a deployment",
    description:
      "Keeps so many VMs alike from now on. It is answered at once; deployments_get tells when they are ready.",
    route: "deployments.create",
    input: inputOf("deployments.create", { instead: { config: configWithoutManifest } }),
    effect: "adds",
  }),
  tool({
    name: "deployments_scale",
    title: "Scale a deployment",
    description: "Says how many VMs a deployment should have. Those that are too many are deleted, the newest first.",
    route: "deployments.patch",
    input: inputOf("deployments.patch", {
      without: Object.keys(DeploymentPatch.properties).filter((name) => name !== "replicas"),
      instead: Type.Required(Type.Pick(DeploymentPatch, ["replicas"])).properties,
    }),
    effect: "destroys",
    isIdempotent: true,
  }),
  tool({
    name: "deployments_delete",
    title: "Delete a deployment",
    description:
      "Deletes a deployment and all of its VMs, and answers when nothing of them is left. It can't be undone.",
    route: "deployments.delete",
    effect: "destroys",
  }),
];

const byName = new Map(TOOLS.map((entry) => [entry.name, entry]));

/** The tool of a name. */
export function findTool(name: string): Tool | undefined {
  return byName.get(name);
}
