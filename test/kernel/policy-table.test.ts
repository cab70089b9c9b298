import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import test, { beforeEach } from "node:test";
import { GuestPolicy } from "../../packages/host/src/policy/guest-policy.ts";
import type { PolicyEntry } from "../../packages/host/src/policy/entry.ts";
import { enterOwnNamespace } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

const NFT = "/usr/sbin/nft";
const OURS = new GuestPolicy({ installation: "abcd1234", nft: NFT });
const THEIRS = new GuestPolicy({ installation: "ffff0000", nft: NFT });

function nft(...args: string[]): string {
  return execFileSync(NFT, args, { encoding: "utf8" });
}

/** Each VM of its own tap; of the ids that end so, `dhcp` ones, ones without a lease and ones let alone. */
function entry(vmId: number): PolicyEntry {
  const [high, low] = [vmId >> 8, vmId & 255];
  const hex = (byte: number) => byte.toString(16).padStart(2, "0");
  return {
    vmId,
    tap: vmId % 7 === 0 ? `tap${vmId}` : `vttap-${vmId}`,
    mac: `02:00:00:00:${hex(high)}:${hex(low)}`,
    mode: vmId % 2 === 0 ? "dhcp" : "bridged",
    addresses: vmId % 4 === 0 ? [] : [`10.1.${high}.${low}`, `10.2.${high}.${low}`],
    antiSpoof: vmId % 10 !== 3,
  };
}

const entries = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => entry(from + index));
const asObserved = (list: readonly PolicyEntry[]) =>
  list.map((e) => (e.antiSpoof ? e : { vmId: e.vmId, tap: e.tap, antiSpoof: false }));

beforeEach(() => nft("flush", "ruleset"));

test("without a table there is nothing to observe, and removing makes none", async () => {
  await OURS.remove([1, 2]);
  assert.equal((await OURS.observe()).rules, "absent");
  assert.deepEqual(await OURS.dropped(), new Map());
  assert.equal(nft("list", "ruleset"), "");
});

test("one batch makes a thousand entries, and they are observed just as they were given", async () => {
  const all = entries(1, 1000);
  await OURS.put(all);
  const observed = await OURS.observe();
  assert.equal(observed.rules, "intact");
  assert.deepEqual(observed.entries, asObserved(all));
  assert.deepEqual(observed.damaged, []);
  assert.equal((await OURS.dropped()).size, 1000);
});

test("the same again changes not one byte, handles included", async () => {
  await OURS.put(entries(1, 20));
  const before = nft("-a", "list", "ruleset");
  await OURS.put(entries(1, 20));
  await OURS.reconcile(entries(1, 20));
  assert.equal(nft("-a", "list", "ruleset"), before);
});

test("reconciling leads from any entries to any others", async () => {
  await OURS.reconcile(entries(1, 30));
  const moved = entries(10, 40).map((e): PolicyEntry =>
    e.vmId % 3 === 0 ? { ...entry(e.vmId + 100), vmId: e.vmId, mode: "dhcp" } : e,
  );
  await OURS.reconcile(moved);
  const observed = await OURS.observe();
  assert.deepEqual(observed.entries, asObserved(moved));
  assert.deepEqual(observed.damaged, []);
  await OURS.reconcile([]);
  assert.deepEqual((await OURS.observe()).elements, []);
});

test("a tap's name goes from one VM to the next in one step", async () => {
  await OURS.put([entry(1)]);
  await OURS.reconcile([{ ...entry(2), tap: entry(1).tap }]);
  assert.deepEqual((await OURS.observe()).entries, [{ ...entry(2), tap: entry(1).tap }]);
});

test("two installations share the table, and neither touches the other's entries", async () => {
  await OURS.put(entries(1, 3));
  await THEIRS.put(entries(11, 13));
  assert.deepEqual((await OURS.observe()).entries, asObserved(entries(1, 3)));
  await OURS.reconcile([]);
  assert.deepEqual((await THEIRS.observe()).entries, asObserved(entries(11, 13)));
  assert.deepEqual((await OURS.observe()).elements, []);
});

test("a tap that another installation has an entry for is refused, and nothing changes", async () => {
  await THEIRS.put([entry(1)]);
  const before = nft("list", "ruleset");
  await assert.rejects(OURS.put([{ ...entry(1), vmId: 2, mode: "dhcp" }]), {
    code: "exists",
    message: "the rules hold the tap vttap-1 for another Volant installation (ffff0000)",
  });
  assert.equal(nft("list", "ruleset"), before);
});

test("what another installation says of a tap gives way where it may, in one transaction, and its other taps keep theirs", async () => {
  const heir = new GuestPolicy({ installation: "beef0000", nft: NFT, givesWay: async (tap) => tap !== "vttap-2" });
  // One that lets everything pass, and one of each mode.
  await THEIRS.put([entry(1), entry(2), entry(4), entry(13)]);
  const mine = { ...entry(13), vmId: 1, antiSpoof: true };
  await heir.put([mine, { ...entry(4), vmId: 4 }]);
  assert.deepEqual((await heir.observe()).entries, asObserved([mine, entry(4)]));
  assert.deepEqual((await THEIRS.observe()).entries, asObserved([entry(1), entry(2)]));
  assert.deepEqual([...(await THEIRS.dropped()).keys()], [1, 2]);
  const before = nft("-a", "list", "ruleset");
  await heir.put([mine]);
  assert.equal(nft("-a", "list", "ruleset"), before, "the same again changed something");
  await assert.rejects(heir.put([{ ...entry(2), vmId: 2 }]), { code: "exists" });
  assert.equal(nft("-a", "list", "ruleset"), before);
});

test("rules and elements that somebody deleted or added come to light, and are put right with the entries kept", async () => {
  await OURS.put(entries(1, 5));
  for (const tamper of [
    ["flush", "chain", "bridge", "volant", "guard"],
    ["insert", "rule", "bridge", "volant", "guard", "accept"],
    ["flush", "chain", "bridge", "volant", "from_port"],
  ]) {
    nft(...tamper);
    assert.equal((await OURS.observe()).rules, "changed", tamper.join(" "));
    await OURS.put([entry(1)]);
    const observed = await OURS.observe();
    assert.equal(observed.rules, "intact", tamper.join(" "));
    assert.deepEqual(observed.entries, asObserved(entries(1, 5)));
  }
  nft("flush", "set", "bridge", "volant", "leases");
  assert.deepEqual((await OURS.observe()).entries, asObserved(entries(1, 5).map((e) => ({ ...e, addresses: [] }))));
  nft("flush", "map", "bridge", "volant", "dropped");
  assert.deepEqual((await OURS.observe()).damaged, [1, 2, 3, 4, 5]);
  await OURS.reconcile(entries(1, 5));
  assert.deepEqual((await OURS.observe()).entries, asObserved(entries(1, 5)));
  nft("flush", "ruleset");
  await OURS.reconcile(entries(1, 5));
  assert.deepEqual((await OURS.observe()).entries, asObserved(entries(1, 5)));
});

test("the table goes when nobody has an entry in it, and stays as long as anybody has", async () => {
  await OURS.put([entry(1)]);
  await THEIRS.put([entry(2)]);
  await OURS.remove([1]);
  await OURS.removeTable();
  assert.equal((await THEIRS.observe()).rules, "intact");
  await THEIRS.remove([2]);
  await THEIRS.removeTable();
  await THEIRS.removeTable();
  assert.equal(nft("list", "ruleset"), "");
});

test("an nft that is not there is said in one sentence", async () => {
  const absent = new GuestPolicy({ installation: "abcd1234", nft: "/nonexistent/nft" });
  await assert.rejects(absent.observe(), { code: "not_ready", message: "can't run /nonexistent/nft: ENOENT" });
});
