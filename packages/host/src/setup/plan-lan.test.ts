import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Crash, ModelHost, modelState } from "../testing/model-host.ts";
import type { ModelState } from "../testing/model-host.ts";
import { setupRequest } from "../testing/setup-request.ts";
import { previewSetup, restoreNetwork, runSetup, undoSetup } from "./apply.ts";
import { disableIpv6Name } from "./lan.ts";
import { operationCommands } from "./operation.ts";
import { checkSettings } from "./settings.ts";
import type { SetupRequest } from "./settings.ts";

const request: Partial<SetupRequest> = { serviceFile: "", lans: [{ bridge: "lbr0", card: "eth0" }] };
const settings = checkSettings(setupRequest(request));

function hostState(): ModelState {
  const state = modelState();
  state.sysctls[disableIpv6Name("eth0")] = "0";
  return state;
}

function comparable(state: ModelState): ModelState {
  const copy = structuredClone(state);
  for (const list of [copy.links, copy.addresses, copy.routes, copy.tables, copy.chains, copy.folders]) {
    list.sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)));
  }
  return copy;
}

async function untilCrash(work: Promise<unknown>): Promise<void> {
  await work.catch((error: unknown) => assert.ok(error instanceof Crash, String(error)));
}

test("the card's address is on the bridge before the card loses it, and the routes change in one step", async () => {
  const plan = await previewSetup(new ModelHost(hostState()), settings);
  assert.deepEqual(plan.refusals, []);
  const commands = plan.actions.flatMap(({ operations }) => operations.flatMap(operationCommands));
  const from = commands.findIndex((line) => line.startsWith("ip link add name lbr0"));
  assert.deepEqual(commands.slice(from), [
    "ip link add name lbr0 mtu 1500 address 52:54:00:00:00:01 type bridge stp_state 0 forward_delay 0",
    commands[from + 1],
    "ip address add 10.0.2.15/24 dev lbr0",
    "ip link set dev eth0 up master lbr0",
    "ip link set dev lbr0 up",
    "ip route replace default via 10.0.2.2 dev lbr0 table 254 proto static scope global",
    "ip address delete 10.0.2.15/24 dev eth0",
    "sysctl -w net/ipv6/conf/eth0/disable_ipv6=1",
  ]);
});

test("a set-up with a LAN that ends at any point is finished by the next, and undone without a trace at any point", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat({ max: 40 }), { maxLength: 2 }),
      fc.array(fc.nat({ max: 40 }), { maxLength: 2 }),
      fc.boolean(),
      async (ends, undoEnds, finish) => {
        const state = hostState();
        const host = new ModelHost(structuredClone(state));
        for (const effects of ends) {
          host.effectsLeft = effects;
          await untilCrash(runSetup(host, settings));
        }
        host.effectsLeft = Infinity;
        if (finish) {
          await runSetup(host, settings);
          const plan = await previewSetup(host, checkSettings(setupRequest({ serviceFile: "" })));
          assert.deepEqual(
            plan.actions.filter(({ needed }) => needed),
            [],
          );
        }
        for (const effects of undoEnds) {
          host.effectsLeft = effects;
          await untilCrash(undoSetup(host));
        }
        host.effectsLeft = Infinity;
        await undoSetup(host);
        assert.deepEqual(comparable(host.state), comparable(state));
      },
    ),
    { numRuns: 300 },
  );
});

test("after a reboot the bridge gets what the card had, whether boot scripts gave it to the card again or not", async () => {
  for (const configured of [true, false]) {
    const host = new ModelHost(hostState());
    await runSetup(host, settings);
    const { record, folders } = host.state;
    const next = { ...hostState(), kernel: { bootId: "boot-2", networkNamespace: "net:[1]" }, record, folders };
    if (!configured) {
      next.addresses = next.addresses.filter(({ link }) => link !== "eth0");
      next.routes = [];
    }
    const rebooted = new ModelHost(next);
    await restoreNetwork(rebooted);
    assert.deepEqual(
      rebooted.state.addresses.filter(({ link }) => link === "lbr0" || link === "eth0"),
      [{ link: "lbr0", address: "10.0.2.15", prefixLength: 24 }],
    );
    const way = rebooted.state.routes.find(({ destination }) => destination === "0.0.0.0/0");
    assert.equal(way?.link, "lbr0");
    await undoSetup(rebooted);
    assert.deepEqual(comparable(rebooted.state).addresses, comparable(hostState()).addresses);
    assert.deepEqual(comparable(rebooted.state).routes, comparable(hostState()).routes);
  }
});

test("a card that is gone after a reboot keeps nothing else from being put back, and is told of", async () => {
  const host = new ModelHost(hostState());
  await runSetup(host, settings);
  const { record, folders } = host.state;
  const next = { ...hostState(), kernel: { bootId: "boot-2", networkNamespace: "net:[1]" }, record, folders };
  next.links = next.links.filter(({ name }) => name !== "eth0");
  const rebooted = new ModelHost(next);
  assert.ok((await restoreNetwork(rebooted)).restored.some((title) => title.startsWith("bridge vbr0")));
  const { notes } = await previewSetup(rebooted, checkSettings(setupRequest({ serviceFile: "" })));
  assert.ok(notes.includes("the LAN bridge lbr0 can't be put back: there is no network card eth0"), notes.join());
});

test("a card that somebody else sees to, a taken name and a second bridge on one card are refused, and nothing is done", async () => {
  const refused = async (state: ModelState, change: Partial<SetupRequest>, pattern: RegExp): Promise<void> => {
    const host = new ModelHost(state);
    const before = structuredClone(host.state);
    await assert.rejects(runSetup(host, checkSettings(setupRequest({ ...request, ...change }))), pattern);
    assert.deepEqual(host.state, before);
  };
  const owned = { ...hostState(), owners: { eth0: { message: "NetworkManager configures eth0" } } };
  await refused(owned, {}, /NetworkManager configures eth0/);
  await refused(hostState(), { lans: [{ bridge: "eth0", card: "eth9" }] }, /there is no network card eth9/);
  const host = new ModelHost(hostState());
  await runSetup(host, settings);
  await refused(
    host.state,
    { lans: [{ bridge: "lbr1", card: "eth0" }] },
    /the LAN bridge lbr0 is set up already, as made on eth0/,
  );
  await refused(host.state, { lans: [{ bridge: "lbr0", card: null }] }, /set up already/);
  assert.throws(() => checkSettings(setupRequest({ lans: [{ bridge: "vbr0", card: "eth0" }] })), /the managed bridge/);
  assert.throws(
    () => checkSettings(setupRequest({ lans: [{ bridge: "a b", card: "eth0" }] })),
    /LAN bridge name "a b"/,
  );
});
