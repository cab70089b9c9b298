/** What fast-check makes runs of: orders of eight clients, faults, and moments at which everybody has finished and all is compared. */
import fc from "fast-check";
import { commit, faultText, type Fault } from "./faults.ts";
import type { Misdeed, Mode, Port, Restart, Wish } from "./knowledge.ts";
import { carryOut, orderText, type Change, type Operation, type Order } from "./operations.ts";
import { comeToRest } from "./quiet.ts";
import type { World } from "./world.ts";

type Command = fc.AsyncCommand<World, World>;

const CLIENTS = "abcdefgh";
const OWN_EACH = 2;
const SHARED = ["s1", "s2", "s3"];
/** The clients' numbers begin at 0. */
const FAULTS_LANE = -1;

class OrderCommand implements Command {
  readonly #order: Order;

  constructor(order: Order) {
    this.#order = order;
  }

  check(): boolean {
    return true;
  }

  async run(_model: World, world: World): Promise<void> {
    await world.enqueue(this.#order.client, () => carryOut(world, this.#order));
  }

  toString(): string {
    const by = this.#order.ownership === "shared" ? ` by ${CLIENTS[this.#order.client]}` : "";
    return orderText(this.#order) + by;
  }
}

class FaultCommand implements Command {
  readonly #fault: Fault;

  constructor(fault: Fault) {
    this.#fault = fault;
  }

  check(): boolean {
    return true;
  }

  async run(_model: World, world: World): Promise<void> {
    await world.enqueue(FAULTS_LANE, () => commit(world, this.#fault));
  }

  toString(): string {
    return faultText(this.#fault);
  }
}

class RestCommand implements Command {
  check(): boolean {
    return true;
  }

  async run(_model: World, world: World): Promise<void> {
    await world.join();
    await comeToRest(world);
    world.tell("at rest");
  }

  toString(): string {
    return "compare";
  }
}

export interface Extent {
  readonly clients: number;
  /** Names that each client has for itself; default 2. */
  readonly ownEach?: number;
  readonly shared?: number;
  readonly faults: boolean;
  /** Whether killing volantd is one of them; default true. */
  readonly killsVolantd?: boolean;
  /** Whether guests do wrong; only the stand-in's do. */
  readonly misdeeds: boolean;
  readonly modes?: readonly Mode[];
  readonly restarts?: readonly Restart[];
}

/** A name's address and port, if it asks for them: nobody else's. */
function addressOf(name: string): string {
  const [letter = "a", digit = "1"] = name;
  return `10.77.9.${10 + CLIENTS.indexOf(letter) * 10 + Number(digit)}`;
}

function portOf(name: string): number {
  const [letter = "a", digit = "1"] = name;
  return 18_000 + CLIENTS.indexOf(letter) * 10 + Number(digit);
}

function portsArbitrary(name: string | undefined): fc.Arbitrary<readonly Port[]> {
  const any: Port = { guest: 80, host: "any" };
  const lists: (readonly Port[])[] = [[], [any]];
  if (name !== undefined) lists.push([{ guest: 8080, host: portOf(name) }], [any, { guest: 8080, host: portOf(name) }]);
  return fc.constantFrom(...lists);
}

function wishArbitrary(extent: Extent, name: string | undefined): fc.Arbitrary<Wish> {
  const misdeeds: fc.WeightedArbitrary<Misdeed>[] = [{ weight: 12, arbitrary: fc.constant("") }];
  if (extent.misdeeds && name !== undefined) {
    const wrong = ["standin.panic_after_ms=500", "standin.poweroff_after_ms=500", "standin.hang_after_ms=500"] as const;
    misdeeds.push({ weight: 2, arbitrary: fc.constantFrom(...wrong) });
  }
  const wish = fc.record({
    mode: fc.constantFrom<Mode>(...(extent.modes ?? ["bridged", "vsock", "dhcp"])),
    restart: fc.constantFrom<Restart>(...(extent.restarts ?? ["no", "on-failure", "always"])),
    ports: portsArbitrary(name),
    address: name === undefined ? fc.constant(undefined) : fc.constantFrom(undefined, undefined, addressOf(name)),
    misdeed: fc.oneof(...misdeeds),
  });
  return wish.map((made) => ({
    ...made,
    // One that did wrong again and again would never come to rest.
    restart: made.misdeed === "" ? made.restart : "no",
    // A new VM of another mode is refused an address.
    address: made.mode === "bridged" ? made.address : undefined,
  }));
}

function changeArbitrary(extent: Extent, name: string | undefined): fc.Arbitrary<Change> {
  return fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({ mode: fc.constantFrom<Mode>(...(extent.modes ?? ["bridged", "vsock", "dhcp"])) }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        restart: fc.constantFrom<Restart>(...(extent.restarts ?? ["no", "on-failure", "always"])),
      }),
    },
    { weight: 2, arbitrary: fc.record({ ports: portsArbitrary(name) }) },
    { weight: 1, arbitrary: fc.record({ memoryMib: fc.constantFrom(96, 112) }) },
  );
}

function operationArbitrary(extent: Extent, name: string | undefined): fc.Arbitrary<Operation> {
  const plain = (kind: "get" | "delete" | "start" | "stop" | "restart" | "list") => fc.constant({ kind } as const);
  return fc.oneof(
    { weight: 6, arbitrary: wishArbitrary(extent, name).map((wish) => ({ kind: "create", wish }) as const) },
    { weight: 3, arbitrary: changeArbitrary(extent, name).map((change) => ({ kind: "patch", change }) as const) },
    { weight: 2, arbitrary: plain("delete") },
    { weight: 2, arbitrary: plain("start") },
    { weight: 2, arbitrary: plain("stop") },
    { weight: 2, arbitrary: plain("restart") },
    { weight: 2, arbitrary: plain("get") },
    { weight: 1, arbitrary: plain("list") },
  );
}

function ownNames({ clients, ownEach = OWN_EACH }: Extent): string[] {
  const letters = CLIENTS.slice(0, clients).split("");
  return letters.flatMap((letter) => Array.from({ length: ownEach }, (_none, index) => `${letter}${index + 1}`));
}

/** None, mostly: where the client hangs up, and when. */
function hangUpArbitrary({ faults }: Extent): fc.Arbitrary<number | undefined> {
  if (!faults) return fc.constant(undefined);
  return fc.oneof(
    { weight: 15, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 25 }) },
  );
}

/** A patch that was hung up on may still be written after its repetition, and after what came next: only who never hangs up knows what is last. */
function withoutDoubt(order: Order): Order {
  return order.operation.kind === "patch" ? { ...order, hangUpAfterMs: undefined } : order;
}

function ownOrder(extent: Extent): fc.Arbitrary<Order> {
  return fc.constantFrom(...ownNames(extent)).chain((name) =>
    fc.record({
      client: fc.constant(CLIENTS.indexOf(name[0] ?? "")),
      name: fc.constant(name),
      ownership: fc.constant("own" as const),
      operation: operationArbitrary(extent, name),
      hangUpAfterMs: hangUpArbitrary(extent),
    }),
  );
}

function sharedOrder(extent: Extent, names: readonly string[]): fc.Arbitrary<Order> {
  return fc.record({
    client: fc.nat(extent.clients - 1),
    name: fc.constantFrom(...names),
    ownership: fc.constant("shared" as const),
    operation: operationArbitrary(extent, undefined),
    hangUpAfterMs: hangUpArbitrary(extent),
  });
}

function faultArbitrary(names: readonly string[], killsVolantd: boolean): fc.Arbitrary<Fault> {
  const against = (kind: Extract<Fault, { name: string }>["kind"]) =>
    fc.record({ kind: fc.constant(kind), name: fc.constantFrom(...names) });
  return fc.oneof(
    { weight: 4, arbitrary: against("kill") },
    { weight: 2, arbitrary: against("remove the tap of") },
    { weight: 2, arbitrary: against("remove the neighbour of") },
    { weight: 1, arbitrary: against("wipe the folder of") },
    ...(killsVolantd ? [{ weight: 2, arbitrary: fc.constant<Fault>({ kind: "kill volantd" }) }] : []),
    { weight: 1, arbitrary: fc.constant<Fault>({ kind: "remove the bridge" }) },
    { weight: 1, arbitrary: fc.constant<Fault>({ kind: "remove the rules" }) },
    { weight: 1, arbitrary: fc.constant<Fault>({ kind: "empty the rules" }) },
  );
}

/** One command of a run. */
function commandArbitrary(extent: Extent): fc.Arbitrary<Command> {
  const shared = SHARED.slice(0, extent.shared ?? SHARED.length);
  const names = [...ownNames(extent), ...shared];
  const weighted: fc.WeightedArbitrary<Command>[] = [
    { weight: 30, arbitrary: ownOrder(extent).map((order) => new OrderCommand(withoutDoubt(order))) },
  ];
  if (shared.length > 0) {
    weighted.push({
      weight: 6,
      arbitrary: sharedOrder(extent, shared).map((order) => new OrderCommand(withoutDoubt(order))),
    });
  }
  if (extent.faults) {
    weighted.push({
      weight: 2,
      arbitrary: faultArbitrary(names, extent.killsVolantd ?? true).map((fault) => new FaultCommand(fault)),
    });
  }
  return fc.oneof(...weighted);
}

/** Runs of up to `most` commands, which are compared at their ends. */
export function runArbitrary(extent: Extent, most: number, replayPath?: string): fc.Arbitrary<Iterable<Command>> {
  const replay = replayPath === undefined ? {} : { replayPath };
  return fc.commands([commandArbitrary(extent)], { maxCommands: most, size: "max", ...replay });
}

/** Carries a run out, compares, and leaves no VM. */
export async function carryOutRun(world: World, commands: Iterable<Command>): Promise<void> {
  await fc.asyncModelRun(() => ({ model: world, real: world }), commands);
  await new RestCommand().run(world, world);
}
