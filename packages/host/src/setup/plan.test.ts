import assert from "node:assert/strict";
import test from "node:test";
import { ModelHost, modelState } from "../testing/model-host.ts";
import type { ModelState } from "../testing/model-host.ts";
import { setupRequest } from "../testing/setup-request.ts";
import { previewSetup } from "./apply.ts";
import { operationCommands } from "./operation.ts";
import { planSetup } from "./plan.ts";
import type { SetupPlan } from "./plan.ts";
import { bridgeAlias, bridgeMac, checkSettings } from "./settings.ts";
import type { SetupRequest } from "./settings.ts";

async function preview(state: Partial<ModelState> = {}, request: Partial<SetupRequest> = {}): Promise<SetupPlan> {
  return await previewSetup(new ModelHost(modelState(state)), checkSettings(setupRequest(request)));
}

function bridge(change: Partial<ModelState["links"][number]> = {}): ModelState["links"] {
  const link = {
    name: "vbr0",
    index: 9,
    kind: "bridge",
    mac: "02:00:00:00:00:09",
    up: true,
    alias: undefined,
    master: undefined,
  };
  return [{ ...link, ...change }];
}

async function refusal(state: Partial<ModelState>, request: Partial<SetupRequest> = {}): Promise<string> {
  const { refusals } = await preview(state, request);
  assert.equal(refusals.length, 1, JSON.stringify(refusals));
  return `${refusals[0]?.code}: ${refusals[0]?.message}`;
}

test("a fresh host needs bridge, address, up, forwarding, three rules and a service, in that order", async () => {
  const plan = await preview();
  assert.deepEqual(plan.refusals, []);
  assert.ok(plan.actions.every((action) => action.needed));
  const commands = plan.actions.flatMap(({ operations }) => operations.flatMap(operationCommands));
  const mac = bridgeMac(setupRequest());
  assert.deepEqual(commands.slice(0, 8), [
    `ip link add name vbr0 address ${mac} type bridge`,
    `ip link set dev vbr0 alias ${bridgeAlias(setupRequest())}`,
    "ip address add 192.168.127.1/24 dev vbr0",
    "ip link set dev vbr0 up",
    "sysctl -w net/ipv4/ip_forward=1",
    "iptables -w -t nat -I POSTROUTING 1 -s 192.168.127.0/24 '!' -o vbr0 -m comment --comment volant:vbr0 -j MASQUERADE",
    "iptables -w -t filter -I FORWARD 1 -i vbr0 -m comment --comment volant:vbr0 -j ACCEPT",
    "iptables -w -t filter -I FORWARD 1 -o vbr0 -m comment --comment volant:vbr0 -j ACCEPT",
  ]);
  assert.match(commands[8] ?? "", /^cat > \/etc\/systemd\/system\/volantd\.service <<'EOF'\n/);
  assert.deepEqual(commands.slice(9), ["systemctl daemon-reload", "systemctl enable volantd.service"]);
});

test("without systemd, and without a service file, there is no service", async () => {
  const without = await preview({ systemd: false });
  assert.ok(without.actions.every(({ title }) => !title.includes("service")));
  assert.match(without.notes.join(), /systemd is not this machine's init/);
  assert.deepEqual(
    without.unwritten.map(({ path }) => path),
    ["/etc/systemd/system/volantd.service"],
  );
  assert.match(without.unwritten[0]?.content ?? "", /^ExecStart=/m);
  const unwanted = await preview({}, { serviceFile: "" });
  assert.equal(unwanted.actions.length, 7);
  assert.deepEqual(unwanted.notes, []);
  assert.deepEqual(unwanted.unwritten, []);
});

test("a subnet that overlaps another link's address or a route is refused", async () => {
  const on = (address: string, prefixLength: number): Partial<ModelState> => ({
    addresses: [{ link: "eth1", address, prefixLength }],
    routes: [],
  });
  assert.match(
    await refusal(on("192.168.127.77", 32)),
    /in_use: .* overlaps the address 192\.168\.127\.77\/32 of eth1/,
  );
  assert.match(await refusal(on("192.168.0.1", 16)), /overlaps the address/);
  const via = (destination: string): Partial<ModelState> => ({ routes: [{ destination, link: "tun0", leads: true }] });
  assert.match(await refusal(via("192.168.0.0/16")), /in_use: .* overlaps the route to 192\.168\.0\.0\/16 by tun0/);
  assert.match(await refusal(via("192.168.127.128/25")), /overlaps the route/);
});

test("a route that comes with an overlapping address is told of once", async () => {
  const message = await refusal({
    addresses: [{ link: "eth1", address: "192.168.127.7", prefixLength: 24 }],
    routes: [{ destination: "192.168.127.0/24", link: "eth1", leads: true }],
  });
  assert.match(message, /the address 192\.168\.127\.7\/24 of eth1/);
});

test("default routes, their halves, dead ends and neighbours of the subnet are no obstacle", async () => {
  const routes = [
    { destination: "0.0.0.0/0", link: "eth0", leads: true },
    { destination: "0.0.0.0/1", link: "tun0", leads: true },
    { destination: "128.0.0.0/1", link: "tun0", leads: true },
    { destination: "192.168.0.0/16", link: undefined, leads: false },
    { destination: "192.168.126.0/24", link: "eth0", leads: true },
    { destination: "192.168.128.0/17", link: "eth0", leads: true },
  ];
  assert.deepEqual((await preview({ routes })).refusals, []);
});

test("a link of that name that is not our bridge is refused, and a bridge only without --adopt", async () => {
  assert.match(await refusal({ links: bridge({ kind: "dummy" }) }), /exists: .*vbr0, and it is not a bridge/);
  assert.match(await refusal({ links: bridge({ kind: "dummy" }) }, { adopt: true }), /not a bridge/);
  assert.match(await refusal({ links: bridge() }), /exists: .*was not made by volar setup/);
  assert.match(await refusal({ links: bridge({ alias: "volant:bridge:0000" }) }), /is another Volant's/);
  const adopted = await preview({ links: bridge() }, { adopt: true });
  assert.deepEqual(adopted.refusals, []);
  assert.deepEqual(adopted.actions[0]?.operations, [{ kind: "set_mac", link: "vbr0", mac: "02:00:00:00:00:09" }]);
});

test("a bridge of ours is known by its mark, and gets back its MAC", async () => {
  const plan = await preview({ links: bridge({ alias: bridgeAlias(setupRequest()) }) });
  assert.deepEqual(plan.refusals, []);
  assert.equal(plan.actions[0]?.needed, false);
  assert.match(plan.actions[1]?.title ?? "", /^MAC 06:/);
});

test("a default route on the bridge is refused", async () => {
  const routes = [{ destination: "0.0.0.0/0", link: "vbr0", leads: true }];
  assert.match(await refusal({ links: bridge(), routes }, { adopt: true }), /the default route leaves by vbr0/);
});

test("what can't be looked at is planned as absent; for root a missing iptables is a refusal", async () => {
  const host = new ModelHost(modelState());
  const settings = checkSettings(setupRequest());
  const seen = await host.observe({
    firewall: { kind: "iptables", bridge: "vbr0", rules: [] },
    serviceFile: "",
    stations: [],
    record: undefined,
    sysctls: [],
    forwardingKnown: false,
    everything: false,
  });
  const blind = { ...seen, root: false, network: undefined, sysctls: {}, firewall: { state: "missing" as const } };
  const plan = planSetup(settings, blind, undefined);
  assert.deepEqual(plan.refusals, []);
  assert.ok(plan.actions.every((action) => action.needed));
  const root = planSetup(settings, { ...blind, root: true }, undefined);
  assert.equal(root.refusals[0]?.hint, "apt-get install iptables, or use --firewall nftables");
});

test("a host that is set up with other addresses must be undone first", async () => {
  const host = new ModelHost(modelState());
  const { runSetup } = await import("./apply.ts");
  await runSetup(host, checkSettings(setupRequest()));
  const other = checkSettings(setupRequest({ subnet: "10.9.0.0/16", hostIp: "10.9.0.1" }));
  const plan = await previewSetup(host, other);
  assert.match(plan.refusals[0]?.message ?? "", /set up with bridge vbr0, subnet 192\.168\.127\.0\/24/);
  assert.match(plan.refusals[0]?.hint ?? "", /volar setup --undo/);
});
