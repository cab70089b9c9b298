import assert from "node:assert/strict";
import test from "node:test";
import { doctorView, healthyNetwork, seenLink } from "../testing/doctor-view.ts";
import { checkLanBridges } from "./check-lan.ts";
import type { SeenLink } from "./view.ts";

const card = { name: "eth1", mac: "52:54:00:00:00:07", mtu: 1500, up: true, addresses: [], routes: [] };
const bridge = seenLink({ name: "lbr0", index: 20, kind: "bridge" });
const port = seenLink({ name: "eth1", index: 21, master: 20 });

function says(pattern: RegExp, links: readonly SeenLink[], made = true, address?: string): void {
  const { record } = doctorView();
  assert.ok(record !== undefined && !("unreadable" in record));
  const lans = [{ bridge: "lbr0", card: made ? card : null }];
  const addresses = address === undefined ? [] : [{ link: "eth1", address, prefixLength: 24 }];
  const network = { ...healthyNetwork, links, addresses };
  const [verdict, ...others] = checkLanBridges(doctorView({ record: { ...record, lans }, network }));
  assert.deepEqual(others, []);
  assert.match(`${verdict?.level}: ${verdict?.sentence}; ${verdict?.fix}`, pattern);
}

test("a LAN bridge that is gone, down, or without its card is broken, with what puts it right", () => {
  says(/^ok: the LAN bridge lbr0 is up, with eth1/, [bridge, port]);
  says(/^broken: .*lbr0 is missing; volar setup --work-dir/, [port]);
  says(/^broken: .*whoever made it must make it again; undefined/, [port], false);
  says(/^ok: the LAN bridge lbr0 is up;/, [bridge], false);
  says(/^broken: .*is not a bridge/, [{ ...bridge, kind: "dummy" }, port]);
  says(/^broken: .*is down; ip link set dev lbr0 up/, [{ ...bridge, up: false }, port]);
  says(/^broken: the network card eth1 .* is missing/, [bridge]);
  says(/^broken: .*eth1 is not on the LAN bridge lbr0.*; volar setup/, [bridge, { ...port, master: undefined }]);
  says(/^broken: .*eth1 of lbr0 is down/, [bridge, { ...port, up: false }]);
  says(/^warning: eth1 is a port of lbr0 and has the address 10\.0\.0\.9/, [bridge, port], true, "10.0.0.9");
});
