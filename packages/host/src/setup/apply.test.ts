import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import fc from "fast-check";
import { Crash, ModelHost, modelState } from "../testing/model-host.ts";
import type { ModelState } from "../testing/model-host.ts";
import { setupRequest } from "../testing/setup-request.ts";
import { inspectSetup, previewSetup, restoreNetwork, runSetup, undoSetup } from "./apply.ts";
import type { SetupHost } from "./host-port.ts";
import { FORWARDING } from "./operation.ts";
import { checkSettings } from "./settings.ts";
import { serviceUnit } from "./unit.ts";

const settings = checkSettings(setupRequest());

/** Hosts of many kinds: forwarding on, off or on for one link only; a bridge to adopt; Docker's chains; an old unit. */
const anyHost: fc.Arbitrary<ModelState> = fc
  .record({
    forwarding: fc.boolean(),
    linkForwarding: fc.boolean(),
    redirects: fc.constantFrom("0", "1"),
    foreignBridge: fc.constantFrom("none", "up", "down"),
    docker: fc.boolean(),
    systemd: fc.boolean(),
    oldUnit: fc.constantFrom(undefined, "[Unit]\nDescription=mine\n", serviceUnit(settings)),
    enabled: fc.boolean(),
    folder: fc.boolean(),
  })
  .map((has) => {
    const state = modelState({ systemd: has.systemd });
    state.sysctls[FORWARDING] = has.forwarding ? "1" : "0";
    state.sysctls["net/ipv4/conf/all/accept_redirects"] = has.redirects;
    state.sysctls["net/ipv4/conf/eth0/forwarding"] = has.linkForwarding ? "1" : "0";
    if (has.foreignBridge !== "none") {
      const up = has.foreignBridge === "up";
      const mac = "02:00:00:00:00:09";
      state.links.push({ name: "vbr0", index: 9, kind: "bridge", mac, up, alias: undefined, master: undefined });
      state.sysctls["net/ipv4/conf/vbr0/forwarding"] = "0";
    }
    if (has.docker) {
      state.tables.push("filter");
      state.chains.push({ table: "filter", name: "FORWARD", policy: "drop" });
      state.rules["filter FORWARD"] = ["-j DOCKER-USER"];
    }
    if (has.oldUnit !== undefined) state.files[settings.serviceFile] = has.oldUnit;
    if (has.enabled) state.enabled.push("volantd.service");
    if (has.folder) state.folders.push("/var/lib", "/var/lib/volant");
    return state;
  });

function sorted(state: ModelState): ModelState {
  const copy = structuredClone(state);
  for (const list of [copy.links, copy.addresses, copy.tables, copy.chains, copy.enabled, copy.folders]) {
    list.sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)));
  }
  return copy;
}

async function ignoringCrash(work: Promise<unknown>): Promise<boolean> {
  try {
    await work;
    return false;
  } catch (error) {
    assert.ok(error instanceof Crash, String(error));
    return true;
  }
}

const wanted = { ...settings, adopt: true };

test("after a set-up nothing is needed, and a second one carries nothing out", async () => {
  await fc.assert(
    fc.asyncProperty(anyHost, async (state) => {
      const host = new ModelHost(structuredClone(state));
      await runSetup(host, wanted);
      const plan = await previewSetup(host, wanted);
      assert.deepEqual(plan.refusals, []);
      assert.deepEqual(
        plan.actions.filter((action) => action.needed),
        [],
      );
      const after = structuredClone(host.state);
      host.effectsLeft = 0;
      await runSetup(host, wanted);
      assert.deepEqual(host.state, after);
    }),
    { numRuns: 60 },
  );
});

test("a set-up that ends at any point is undone without a trace", async () => {
  await fc.assert(
    fc.asyncProperty(anyHost, fc.nat({ max: 30 }), async (state, effects) => {
      const host = new ModelHost(structuredClone(state));
      host.effectsLeft = effects;
      await ignoringCrash(runSetup(host, wanted));
      host.effectsLeft = Infinity;
      await undoSetup(host);
      assert.deepEqual(sorted(host.state), sorted(state));
    }),
    { numRuns: 400 },
  );
});

test("a set-up that ends at any point is finished by the next, and undone without a trace", async () => {
  await fc.assert(
    fc.asyncProperty(anyHost, fc.array(fc.nat({ max: 30 }), { maxLength: 3 }), async (state, ends) => {
      const whole = new ModelHost(structuredClone(state));
      await runSetup(whole, wanted);
      const host = new ModelHost(structuredClone(state));
      for (const effects of ends) {
        host.effectsLeft = effects;
        await ignoringCrash(runSetup(host, wanted));
      }
      host.effectsLeft = Infinity;
      await runSetup(host, wanted);
      assert.deepEqual({ ...sorted(host.state), record: "" }, { ...sorted(whole.state), record: "" });
      await undoSetup(host);
      assert.deepEqual(sorted(host.state), sorted(state));
    }),
    { numRuns: 300 },
  );
});

test("an undo that ends at any point is finished by the next", async () => {
  await fc.assert(
    fc.asyncProperty(anyHost, fc.array(fc.nat({ max: 30 }), { maxLength: 3 }), async (state, ends) => {
      const host = new ModelHost(structuredClone(state));
      await runSetup(host, wanted);
      for (const effects of ends) {
        host.effectsLeft = effects;
        await ignoringCrash(undoSetup(host));
      }
      host.effectsLeft = Infinity;
      await undoSetup(host);
      assert.deepEqual(sorted(host.state), sorted(state));
    }),
    { numRuns: 300 },
  );
});

test("one link's forwarding that was turned off is missed and put back where set-up had turned it on, and an undo leaves no trace", async () => {
  const state = modelState();
  const host = new ModelHost(structuredClone(state));
  await runSetup(host, settings);
  for (const link of ["vbr0", "eth0"]) {
    host.state.sysctls[`net/ipv4/conf/${link}/forwarding`] = "0";
    const missing = [`IPv4 forwarding of ${link}`];
    assert.deepEqual(await inspectSetup(host), { state: "complete", missing, untold: false });
    assert.deepEqual((await restoreNetwork(host)).restored, missing);
    assert.equal(host.state.sysctls[`net/ipv4/conf/${link}/forwarding`], "1");
  }
  await undoSetup(host);
  assert.deepEqual(sorted(host.state), sorted(state));
});

test("forwarding of links on a host that forwarded before set-up is its administrator's, but for the managed bridge's", async () => {
  const state = modelState();
  for (const name of Object.keys(state.sysctls)) state.sysctls[name] = name.endsWith("accept_redirects") ? "0" : "1";
  const host = new ModelHost(state);
  await runSetup(host, settings);
  host.state.sysctls["net/ipv4/conf/eth0/forwarding"] = "0";
  assert.deepEqual((await inspectSetup(host)).missing, []);
  host.state.sysctls["net/ipv4/conf/vbr0/forwarding"] = "0";
  assert.deepEqual((await restoreNetwork(host)).restored, ["IPv4 forwarding of vbr0"]);
});

test("nothing is missed without a record, after an undo, and while one is at work", async () => {
  const host = new ModelHost(modelState());
  const absent = { state: "absent", missing: [], untold: false };
  assert.deepEqual(await inspectSetup(host), absent);
  await runSetup(host, settings);
  host.effectsLeft = 3;
  await ignoringCrash(undoSetup(host));
  host.effectsLeft = Infinity;
  assert.deepEqual(await inspectSetup(host), { ...absent, state: "busy" });
  await undoSetup(host);
  assert.deepEqual(await inspectSetup(host), absent);
});

test("restoring puts back whatever was removed, and an undo then leaves no trace", async () => {
  const removal = fc.constantFrom("bridge", "address", "down", "mac", "alias", "forwarding", "rules", "tables");
  await fc.assert(
    fc.asyncProperty(fc.array(removal), async (removals) => {
      const state = modelState();
      const host = new ModelHost(structuredClone(state));
      await runSetup(host, settings);
      const whole = structuredClone(host.state);
      for (const name of removals) remove(host.state, name);
      const effects = host.executed.length;
      const { state: condition, missing } = await inspectSetup(host);
      assert.deepEqual([condition, host.executed.length], ["complete", effects], "a look changes nothing");
      const { restored } = await restoreNetwork(host);
      assert.deepEqual(missing.toSorted(), restored.toSorted(), "a look finds what is put back");
      assert.equal(restored.length > 0, removals.length > 0);
      assert.deepEqual({ ...sorted(host.state), record: "" }, { ...sorted(whole), record: "" });
      assert.deepEqual(await restoreNetwork(host), { recorded: true, restored: [] });
      await undoSetup(host);
      assert.deepEqual(sorted(host.state), sorted(state));
    }),
    { numRuns: 200 },
  );
});

function remove(state: ModelState, what: string): void {
  const index = state.links.findIndex(({ name }) => name === "vbr0");
  const link = state.links[index];
  if (what === "bridge" && link !== undefined) {
    state.links.splice(index, 1);
    state.addresses = state.addresses.filter((address) => address.link !== "vbr0");
    delete state.sysctls["net/ipv4/conf/vbr0/forwarding"];
  } else if (what === "address") state.addresses = state.addresses.filter((address) => address.link !== "vbr0");
  else if (what === "down" && link !== undefined) state.links[index] = { ...link, up: false };
  else if (what === "mac" && link !== undefined && link.alias !== undefined) {
    state.links[index] = { ...link, mac: "02:00:00:00:00:aa" };
  } else if (what === "alias" && link?.mac.startsWith("06:") === true)
    state.links[index] = { ...link, alias: undefined };
  else if (what === "forwarding") {
    for (const name of Object.keys(state.sysctls))
      if (name.endsWith("forward") || name.endsWith("forwarding")) state.sysctls[name] = "0";
    state.sysctls["net/ipv4/conf/all/accept_redirects"] = "1";
  } else if (what === "rules") state.rules = {};
  else if (what === "tables") {
    state.rules = {};
    state.chains = [];
    state.tables = [];
  }
}

test("after a reboot the network is restored from the record, and the new kernel's values are what undo gives back", async () => {
  const host = new ModelHost(modelState());
  await runSetup(host, settings);
  const { record, files, enabled, folders } = host.state;
  const kernel = { bootId: "boot-2", networkNamespace: "net:[1]" };
  const next = modelState({ kernel, record, files, enabled, folders });
  next.sysctls["net/ipv4/conf/eth0/forwarding"] = "1";
  const before = structuredClone(next);
  const rebooted = new ModelHost(next);
  assert.equal((await restoreNetwork(rebooted)).restored.length, 7);
  await undoSetup(rebooted);
  const { sysctls } = rebooted.state;
  assert.deepEqual(sysctls, before.sysctls);
  assert.deepEqual(rebooted.state.files, {});
});

test("undo after a reboot that nobody restored only takes the files back", async () => {
  const host = new ModelHost(modelState());
  await runSetup(host, settings);
  const { record, files, enabled, folders } = host.state;
  const next = modelState({
    kernel: { bootId: "boot-2", networkNamespace: "net:[1]" },
    record,
    files,
    enabled,
    folders,
  });
  // Somebody else turned forwarding on in this boot.
  next.sysctls[FORWARDING] = "1";
  const rebooted = new ModelHost(next);
  await undoSetup(rebooted);
  assert.deepEqual(
    rebooted.executed.map(({ kind }) => kind),
    ["systemctl", "delete_file", "systemd_reload"],
  );
  assert.equal(rebooted.state.record, undefined);
});

test("undo leaves alone what someone changed since, and says so", async () => {
  const host = new ModelHost(modelState());
  await runSetup(host, settings);
  const { state } = host;
  state.files[settings.serviceFile] += "# mine\n";
  state.sysctls["net/ipv4/conf/all/accept_redirects"] = "1";
  const forward = state.chains.findIndex(({ name }) => name === "FORWARD");
  state.chains[forward] = { table: "filter", name: "FORWARD", policy: "drop" };
  const { steps } = await undoSetup(host);
  assert.deepEqual(
    steps.filter(({ outcome }) => outcome === "kept").map(({ title, reason }) => `${title}: ${reason}`),
    [`file ${settings.serviceFile}: it was changed since`],
  );
  assert.match(state.files[settings.serviceFile] ?? "", /# mine/);
  assert.equal(state.sysctls["net/ipv4/conf/all/accept_redirects"], "1");
  assert.deepEqual(state.chains, [{ table: "filter", name: "FORWARD", policy: "drop" }]);
  assert.equal(state.sysctls[FORWARDING], "0");
});

test("undo refuses, naming them, while the bridge has ports; then it works", async () => {
  const host = new ModelHost(modelState());
  await runSetup(host, settings);
  const bridge = host.state.links.find(({ name }) => name === "vbr0");
  assert.ok(bridge);
  const port = { kind: "tun", mac: "02:00:00:00:00:01", up: true, alias: undefined, master: bridge.index };
  host.state.links.push({ ...port, name: "vttap-web", index: 50 });
  const before = structuredClone(host.state);
  await assert.rejects(undoSetup(host), (error: unknown) => {
    assert.ok(error instanceof VolantError && error.code === "in_use");
    assert.match(error.message, /vbr0 still has the port vttap-web/);
    return true;
  });
  assert.deepEqual(host.state, before);
  host.state.links.pop();
  await undoSetup(host);
  assert.equal(host.state.record, undefined);
});

test("what bears our mark is undone although the record was lost, once set-up ran again", async () => {
  const host = new ModelHost(modelState());
  await runSetup(host, settings);
  host.state.record = undefined;
  await runSetup(host, settings);
  await undoSetup(host);
  assert.deepEqual(
    host.state.links.map(({ name }) => name),
    ["lo", "eth0"],
  );
  assert.deepEqual(host.state.rules, {});
  // Whoever turned it on, the record does not say.
  assert.equal(host.state.sysctls[FORWARDING], "1");
});

test("undo without a record does nothing, and says so", async () => {
  const host = new ModelHost(modelState());
  host.root = false;
  host.effectsLeft = 0;
  assert.deepEqual(await undoSetup(host), { recorded: false, steps: [] });
});

test("without root nothing is changed, in either direction", async () => {
  const host = new ModelHost(modelState());
  await runSetup(host, settings);
  host.root = false;
  host.effectsLeft = 0;
  for (const work of [(): Promise<unknown> => runSetup(host, settings), (): Promise<unknown> => undoSetup(host)]) {
    await assert.rejects(work, (error: unknown) => error instanceof VolantError && error.code === "forbidden");
  }
  assert.equal((await undoSetup(host, { dryRun: true })).recorded, true);
});

test("an error in the middle leaves a record that undo works from", async () => {
  const state = modelState();
  const host = new ModelHost(structuredClone(state));
  const failing: SetupHost = Object.create(host) as SetupHost;
  failing.execute = async (operation) => {
    if (operation.kind === "insert_rule") throw new VolantError("not_ready", "no such table");
    await host.execute(operation);
  };
  for (const name of [
    "observe",
    "readRecord",
    "writeRecord",
    "missingFolders",
    "readSysctls",
    "exclusively",
  ] as const) {
    Object.assign(failing, { [name]: host[name].bind(host) });
  }
  await assert.rejects(runSetup(failing, settings), /no such table/);
  assert.deepEqual(await restoreNetwork(host), { recorded: false, restored: [] });
  await undoSetup(host);
  assert.deepEqual(sorted(host.state), sorted(state));
});
