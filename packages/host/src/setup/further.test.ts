import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { ModelHost, modelState } from "../testing/model-host.ts";
import { setupRequest } from "../testing/setup-request.ts";
import { inspectSetup, restoreNetwork, runSetup, undoSetup } from "./apply.ts";
import { furtherAlias, furtherMac, furtherNames, MAX_FURTHER_NUMBER, parseFurtherAlias } from "./further.ts";
import type { ObservedLink } from "./observed.ts";
import { bridgeMac, checkSettings, type FirewallKind } from "./settings.ts";

const settings = checkSettings(setupRequest({ serviceFile: "" }));
const anyBridge = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/);
const anyMark = fc.record({
  installation: fc.stringMatching(/^[0-9a-f]{8}$/),
  bridge: anyBridge,
  number: fc.integer({ min: 1, max: MAX_FURTHER_NUMBER }),
});

test("names fit the kernel's 15 bytes, and are others for each bridge, number and part", () => {
  const known = { bridge: "vbr0-1", near: "vbr0-1n", far: "vbr0-1f" };
  assert.deepEqual(furtherNames("vbr0", 1), known);
  fc.assert(
    fc.property(
      fc.uniqueArray(anyBridge, { minLength: 2, maxLength: 2 }),
      anyMark,
      ([one = "", two = ""], { number }) => {
        const names = [one, two].flatMap((bridge) => Object.values(furtherNames(bridge, number)));
        for (const name of names) assert.ok(name.length <= 15, name);
        // Of two whose names begin and end alike nothing is promised: whoever comes second finds a name taken, and takes the next number.
        assert.equal(new Set(Object.values(furtherNames(one, number))).size, 3);
        if (one.length > 11 && two.length > 11) assert.equal(new Set(names).size, 6);
      },
    ),
  );
});

test("an alias says whose further bridge it is and which; no tap's, set-up's or LAN's alias does", () => {
  fc.assert(
    fc.property(anyMark, (mark) => {
      assert.deepEqual(parseFurtherAlias(furtherAlias(mark, "bridge")), { kind: "further", ...mark });
      for (const part of ["near", "far"] as const) {
        assert.deepEqual(parseFurtherAlias(furtherAlias(mark, part)), { kind: "trunk", ...mark });
      }
      const macs = (["bridge", "near", "far"] as const).map((part) => furtherMac(mark, part));
      assert.equal(new Set(macs).size, 3);
      for (const mac of macs) assert.match(mac, /^06(?::[0-9a-f]{2}){5}$/);
    }),
  );
  for (const alias of [
    undefined,
    "",
    "volant:abcdef01:7",
    "volant:bridge:abcdef01",
    "volant:lan:abcdef01",
    "volant:further:x:1:vbr0",
  ]) {
    assert.equal(parseFurtherAlias(alias), undefined);
  }
});

/** Further bridges of `vbr0`, as volantd makes them. */
function further(number: number, managed: number): ObservedLink[] {
  const mark = { installation: "abcdef01", bridge: settings.bridge, number };
  const names = furtherNames(settings.bridge, number);
  const index = 100 * number;
  const link = (part: "bridge" | "near" | "far", at: number, master: number | undefined): ObservedLink => ({
    name: names[part],
    index: at,
    kind: part === "bridge" ? "bridge" : "veth",
    mac: furtherMac(mark, part),
    up: true,
    alias: furtherAlias(mark, part),
    master,
  });
  return [link("bridge", index, undefined), link("near", index + 1, managed), link("far", index + 2, index)];
}

function tap(master: number): ObservedLink {
  return {
    name: "vttap-web",
    index: 999,
    kind: "tun",
    mac: "02:00:00:00:00:07",
    up: true,
    alias: "volant:abcdef01:7",
    master,
  };
}

for (const firewall of ["iptables", "nftables"] as const satisfies readonly FirewallKind[]) {
  test(`${firewall}: a host with further bridges gets the rules that they need, no others, and an undo takes both away`, async () => {
    const before = modelState();
    const host = new ModelHost(structuredClone(before));
    await runSetup(host, { ...settings, firewall });
    const plain = structuredClone([host.state.rules, host.state.nft]);
    const managed = host.state.links.find(({ mac }) => mac === bridgeMac(settings))?.index ?? 0;
    host.state.links.push(...further(1, managed), ...further(2, managed));
    assert.equal((await inspectSetup(host)).missing.length, firewall === "iptables" ? 4 : 1);
    assert.equal((await restoreNetwork(host)).restored.length, firewall === "iptables" ? 4 : 1);
    const text = JSON.stringify([host.state.rules, host.state.nft]);
    for (const name of ["vbr0-1", "vbr0-2"]) assert.match(text, new RegExp(`${name}[^]*notrack`));
    assert.deepEqual((await restoreNetwork(host)).restored, []);

    host.state.links.push(tap(100));
    await assert.rejects(undoSetup(host), {
      code: "in_use",
      message: /the bridge vbr0-1 still has the port vttap-web/,
    });
    host.state.links.pop();
    await undoSetup(host);
    assert.deepEqual(host.state.links, before.links);
    assert.deepEqual(
      [host.state.rules, host.state.nft, host.state.chains, host.state.tables],
      [before.rules, before.nft, before.chains, before.tables],
    );
    assert.notDeepEqual(plain, [before.rules, before.nft]);
  });
}
