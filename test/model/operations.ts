/** What clients do, and what they may be answered. Of a VM of their own they know what to expect; of one that all share, that the answer is one of the contract's. */
import assert from "node:assert/strict";
import type { Vm, VmConfigState } from "@volant/contract";
import {
  clashes,
  contradictions,
  mayHaveEnded,
  newlyKnown,
  noteNextMode,
  noteStart,
  type KnownVm,
  type Mode,
  type Port,
  type Restart,
  type Wish,
} from "./knowledge.ts";
import type { Answer, Question, World } from "./world.ts";

/** What a configuration is changed to. */
export interface Change {
  readonly mode?: Mode;
  readonly restart?: Restart;
  readonly ports?: readonly Port[];
  readonly memoryMib?: number;
}

export type Operation =
  | { readonly kind: "create"; readonly wish: Wish }
  | { readonly kind: "patch"; readonly change: Change }
  | { readonly kind: "get" | "delete" | "start" | "stop" | "restart" }
  | { readonly kind: "list" };

/** Whose VM it is: one client's own, or everybody's. */
export type Ownership = "own" | "shared";

export interface Order {
  readonly client: number;
  readonly name: string;
  readonly ownership: Ownership;
  readonly operation: Operation;
  /** The client hangs up in the middle of its request, and sends it again. */
  readonly hangUpAfterMs?: number | undefined;
}

function expose(ports: readonly Port[]): object[] {
  return ports.map(({ guest, host }) => ({ port: guest, ...(host === "any" ? {} : { host_port: host }) }));
}

function createBody(name: string, { mode, restart, ports, address, misdeed }: Wish): object {
  return {
    name,
    plugin: "probe",
    memory_mb: 96,
    ...(misdeed === "" ? {} : { kernel_cmdline: misdeed }),
    config: {
      network: { mode },
      restart,
      ...(ports.length === 0 ? {} : { expose: expose(ports) }),
      ...(address === undefined ? {} : { ip_address: address }),
    },
  };
}

function patchBody({ mode, restart, ports, memoryMib }: Change): object {
  return {
    ...(mode === undefined ? {} : { network: { mode } }),
    ...(restart === undefined ? {} : { restart }),
    ...(ports === undefined ? {} : { expose: expose(ports) }),
    ...(memoryMib === undefined ? {} : { resources: { memory_mb: memoryMib } }),
  };
}

function question({ name, operation }: Order): Question {
  const path = `vms/${name}`;
  switch (operation.kind) {
    case "create":
      return { method: "POST", path: "vms", body: createBody(name, operation.wish) };
    case "patch":
      return { method: "PATCH", path: `${path}/config`, body: patchBody(operation.change) };
    case "get":
      return { method: "GET", path };
    case "delete":
      return { method: "DELETE", path };
    case "list":
      return { method: "GET", path: "vms" };
    default:
      return { method: "POST", path: `${path}/${operation.kind}` };
  }
}

/** An answer in short: `200`, `409 exists`. */
function inShort({ status, code }: Answer): string {
  return code === undefined ? String(status) : `${status} ${code}`;
}

/** What another client may make of it in the meantime: any order of the requests explains these. */
const SHARED_ANSWERS: Readonly<Record<Operation["kind"], readonly string[]>> = {
  create: ["201", "409 exists", "409 in_use"],
  patch: ["200", "404 not_found", "409 wrong_state", "409 in_use"],
  get: ["200", "404 not_found"],
  delete: ["204", "404 not_found"],
  start: ["200", "404 not_found", "409 wrong_state"],
  stop: ["200", "404 not_found", "409 wrong_state"],
  restart: ["200", "404 not_found", "409 wrong_state"],
  list: ["200"],
};

/** What the only client of a VM may be answered. */
function ownAnswers({ kind }: Operation, known: KnownVm | undefined, repeated: boolean): readonly string[] {
  if (kind === "list") return ["200"];
  if (kind === "create") return known === undefined ? ["201"] : ["409 exists"];
  if (known === undefined) return ["404 not_found"];
  if (kind === "delete") return repeated ? ["204", "404 not_found"] : ["204"];
  if (kind !== "start") return ["200"];
  const isUp = known.desired === "running";
  if (isUp && !mayHaveEnded(known)) return ["409 wrong_state"];
  return isUp || repeated ? ["200", "409 wrong_state"] : ["200"];
}

/** Needs the network to be ready, and is refused while it is not. */
function needsNetwork({ kind }: Operation): boolean {
  return kind === "create" || kind === "patch";
}

function noteChange(known: KnownVm, { mode, restart, ports }: Change): void {
  noteNextMode(known, mode ?? known.nextMode);
  known.restart = restart ?? known.restart;
  known.ports = ports ?? known.ports;
}

/** What a success says of the VM itself, and what is known from then on. */
function learn(world: World, order: Order, answer: Answer): void {
  const { name, operation } = order;
  const known = world.known.get(name);
  if (operation.kind === "create") {
    world.known.set(name, newlyKnown(operation.wish, (answer.body as Vm).id));
  } else if (operation.kind === "delete") {
    world.known.set(name, undefined);
  } else if (known !== undefined) {
    if (operation.kind === "start" || operation.kind === "restart") noteStart(known);
    if (operation.kind === "stop") known.desired = "stopped";
    if (operation.kind === "patch") notePatch(known, operation.change, answer, name);
  }
  const after = world.known.get(name);
  const shows = !["delete", "patch", "list"].includes(operation.kind);
  if (shows && after !== undefined) {
    assert.deepEqual(contradictions(after, name, answer.body as Vm), [], `the answer to ${operation.kind}`);
  }
  if (operation.kind === "stop") assert.equal((answer.body as Vm).status, "stopped", `${name} after its stop`);
}

function notePatch(known: KnownVm, change: Change, { body, repeated }: Answer, name: string): void {
  const { version } = body as VmConfigState;
  const expected = repeated ? [known.version + 1, known.version + 2] : [known.version + 1];
  assert.ok(expected.includes(version), `${name}: configuration ${version} after ${known.version}`);
  known.version = version;
  noteChange(known, change);
}

/** Carries one order out and holds the answer against what is known. */
export async function carryOut(world: World, order: Order): Promise<void> {
  const { client, name, ownership, operation, hangUpAfterMs } = order;
  const what = `client ${client}: ${orderText(order)}`;
  world.tell(`${what} …`);
  const answer = await world.ask({ ...question(order), hangUpAfterMs });
  const short = inShort(answer);
  world.tell(`${what}: ${short}${answer.repeated ? " (asked again)" : ""}`);
  const known = world.known.get(name);
  const right = ownership === "own" ? ownAnswers(operation, known, answer.repeated) : SHARED_ANSWERS[operation.kind];
  const isRefused = answer.troubled && needsNetwork(operation) && short === "503 not_ready";
  const { error } = (answer.body ?? {}) as { readonly error?: string };
  assert.ok(isRefused || right.includes(short), `${what}: ${short} (${error ?? ""}), not ${right.join(" or ")}`);
  if (operation.kind === "list") assert.deepEqual(clashes(answer.body as Vm[]), [], what);
  if (ownership === "own" && !isRefused) {
    if (answer.status < 300) learn(world, order, answer);
    // An earlier attempt had done it.
    else if (answer.repeated && operation.kind === "delete") world.known.set(name, undefined);
    else if (answer.repeated && operation.kind === "start" && known?.desired === "stopped") noteStart(known);
  }
  world.operations += 1;
}

function portsText(ports: readonly Port[]): string {
  return ports.map(({ guest, host }) => `-p ${host === "any" ? "" : `${host}:`}${guest}`).join(" ");
}

function wishText({ mode, restart, ports, address, misdeed }: Wish): string {
  const words = [mode, restart === "no" ? "" : `restart ${restart}`, portsText(ports)];
  return [...words, address === undefined ? "" : `--ip ${address}`, misdeed].filter((word) => word !== "").join(", ");
}

function changeText({ mode, restart, ports, memoryMib }: Change): string {
  const published = ports === undefined ? "" : ports.length === 0 ? "no ports" : portsText(ports);
  const words = [mode ?? "", restart === undefined ? "" : `restart ${restart}`, published];
  return [...words, memoryMib === undefined ? "" : `${memoryMib} MiB`].filter((word) => word !== "").join(", ");
}

/** An order as a reader wants it: `create a (vsock, -p 80)`. */
export function orderText({ name, operation, hangUpAfterMs }: Order): string {
  const more = hangUpAfterMs === undefined ? "" : `, hanging up after ${hangUpAfterMs} ms`;
  if (operation.kind === "list") return `list${more}`;
  if (operation.kind === "create") return `create ${name} (${wishText(operation.wish)})${more}`;
  if (operation.kind === "patch") return `patch ${name} (${changeText(operation.change)})${more}`;
  return `${operation.kind} ${name}${more}`;
}
