import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import type { SetupRecord } from "@volant/host";
import type { Link } from "@volant/netlink";
import { canPutBack, LanBridges } from "./lan-bridges.ts";

const card = { name: "eth1", mac: "52:54:00:00:00:07", mtu: 1500, up: true, addresses: [], routes: [] };
const record = {
  state: "applied",
  lans: [
    { bridge: "lbr0", card },
    { bridge: "br-lan", card: null },
  ],
} as unknown as SetupRecord;

const recordStamp = async () => undefined;

test("a bridge may be joined that set-up recorded or the operator named, and no other; the refusal says what to run", async () => {
  const lans = new LanBridges({ named: ["br-env"], readRecord: async () => record, recordStamp });
  for (const bridge of ["lbr0", "br-lan", "br-env"]) await lans.check(bridge);
  await assert.rejects(lans.check("docker0"), (error: unknown) => {
    assert.ok(error instanceof VolantError && error.code === "invalid");
    assert.match(error.hint ?? "", /^run: volar setup --lan-bridge docker0 /);
    return true;
  });
  const none = new LanBridges({ named: [], readRecord: async () => undefined, recordStamp });
  await assert.rejects(none.check("lbr0"), { code: "invalid" });
});

test("only bridges that set-up made are kept, and none while a set-up or an undo is at work", async () => {
  const made = (change: Partial<SetupRecord>) =>
    new LanBridges({ named: ["br-env"], readRecord: async () => ({ ...record, ...change }), recordStamp }).made();
  assert.deepEqual(await made({}), [{ bridge: "lbr0", card: "eth1" }]);
  assert.deepEqual(await made({ state: "undoing" }), []);
  const damaged = async () => {
    throw new VolantError("wrong_state", "it is not JSON");
  };
  assert.deepEqual(await new LanBridges({ named: [], readRecord: damaged, recordStamp }).made(), []);
});

test("a LAN bridge is put back when it is gone or down, its card is free and its name is not taken", () => {
  const link = (change: object) => ({ flags: { up: true }, ...change }) as unknown as Link;
  const lbr0 = { name: "lbr0", index: 7, kind: "bridge", alias: "volant:lan:00000000" };
  const asked = (...links: object[]) => canPutBack({ bridge: "lbr0", card: "eth1" }, links.map(link));
  assert.equal(asked({ name: "eth1" }), true);
  assert.equal(asked(lbr0, { name: "eth1", master: 7 }), false);
  assert.equal(asked({ ...lbr0, flags: { up: false } }, { name: "eth1", master: 7 }), true);
  assert.equal(asked({ ...lbr0, alias: undefined, flags: { up: false } }, { name: "eth1" }), false);
  assert.equal(asked({ name: "eth1", master: 9 }), false);
  assert.equal(asked(), false);
});

test("the record is read again when it has changed, and only then", async () => {
  let [stamp, reads] = ["1", 0];
  const readRecord = async () => {
    reads += 1;
    return reads === 1 ? record : undefined;
  };
  const lans = new LanBridges({ named: [], readRecord, recordStamp: async () => stamp });
  assert.equal((await lans.made()).length, 1);
  assert.equal((await lans.made()).length, 1);
  assert.equal(reads, 1);
  stamp = "2";
  assert.deepEqual(await lans.made(), []);
});
