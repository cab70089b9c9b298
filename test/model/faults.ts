/** What goes wrong while clients work: processes that are killed, and a host that others change. Each fault is over when this resolves; what it leads to may still be under way. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import type { Vm } from "@volant/contract";
import { ip, ipJson } from "../namespace.ts";
import { findProcesses, runProgram } from "../vm/house.ts";
import type { World } from "./world.ts";

const RETURNS_WITHIN_MS = 90_000;
const LOOK_EVERY_MS = 50;

export type Fault =
  | { readonly kind: "kill volantd" | "remove the bridge" | "remove the rules" | "empty the rules" }
  | {
      readonly kind: "kill" | "remove the tap of" | "remove the neighbour of" | "wipe the folder of";
      readonly name: string;
    };

export function faultText(fault: Fault): string {
  return "name" in fault ? `${fault.kind} ${fault.name}` : fault.kind;
}

async function killVolantd({ gate, house }: World): Promise<void> {
  gate.close();
  try {
    await house.stopVolantd("SIGKILL");
    await house.startVolantd();
  } finally {
    gate.open();
  }
}

function hasBridge(): boolean {
  try {
    return ip("-o", "-4", "addr", "show", "dev", "vbr0", "up").includes("inet ");
  } catch {
    return false;
  }
}

async function removeBridge(world: World): Promise<void> {
  await world.inTrouble(async () => {
    await runProgram("ip", ["link", "del", "vbr0"]);
    const deadline = performance.now() + RETURNS_WITHIN_MS;
    // Nothing tells a stranger when volantd has put it back.
    while (!hasBridge()) {
      if (performance.now() > deadline) throw new Error(`the bridge is not back within ${RETURNS_WITHIN_MS} ms`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  });
}

/** The VM of this name now, whoever's it is. */
async function find(world: World, name: string): Promise<Vm | undefined> {
  const { status, body } = await world.ask({ method: "GET", path: `vms/${name}` });
  return status === 200 ? (body as Vm) : undefined;
}

/** What is done to a VM may end the run that is under way before it, and one that begins meanwhile. */
async function hurting(world: World, name: string, work: () => Promise<void> | void, wipes = false): Promise<void> {
  const mark = (): void => {
    const known = world.known.get(name);
    if (known === undefined) return;
    known.hurt = true;
    known.wiped ||= wipes;
  };
  mark();
  await work();
  mark();
}

function killProcesses(text: string): void {
  for (const pid of findProcesses(text)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch (error) {
      // It has ended since.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }
}

/** Does it, and tells of it. What is not there (any more) can't be removed: then nothing happens. */
export async function commit(world: World, fault: Fault): Promise<void> {
  world.tell(`fault: ${faultText(fault)} …`);
  if (fault.kind === "kill volantd") await killVolantd(world);
  else if (fault.kind === "remove the bridge") await removeBridge(world);
  else if (fault.kind === "remove the rules") await runProgram("nft", ["delete", "table", "bridge", "volant"]);
  else if (fault.kind === "empty the rules") await runProgram("nft", ["flush", "table", "bridge", "volant"]);
  else if ("name" in fault) await commitAgainst(world, fault.kind, fault.name);
  world.tell(`fault: ${faultText(fault)}: done`);
}

async function commitAgainst(
  world: World,
  kind: Extract<Fault, { name: string }>["kind"],
  name: string,
): Promise<void> {
  const vm = await find(world, name);
  if (vm === undefined) return;
  const { tap } = vm.network;
  if (kind === "kill") {
    await hurting(world, name, () => killProcesses(`guest=volant:${world.installation}:${vm.id}:`));
  } else if (kind === "wipe the folder of") {
    const folder = join(world.house.environment["VOLANT_RUNTIME_DIR"] ?? "", String(vm.id));
    world.wiped.add(vm.id);
    await hurting(world, name, () => rmSync(folder, { recursive: true, force: true }), true);
  } else if (kind === "remove the neighbour of") {
    if (vm.ip_address !== "") await runProgram("ip", ["neigh", "del", vm.ip_address, "dev", "vbr0"]);
  } else if (tap !== undefined) {
    await hurting(world, name, async () => void (await runProgram("ip", ["link", "del", tap])));
  }
}

/** Names of all taps of VMs, whoever they belong to. */
export function taps(): string[] {
  return ipJson("link", "show")
    .map((link) => String(link["ifname"]))
    .filter((name) => name.startsWith("vttap-"));
}
