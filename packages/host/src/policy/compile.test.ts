import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  addEntry,
  changePolicy,
  compilePolicyTable,
  givingWay,
  type NftCommand,
  removeEntry,
  removeOthers,
} from "./compile.ts";
import { elementKey, elementsOf, type PolicyElement } from "./elements.ts";
import { checkEntry, type PolicyEntry } from "./entry.ts";
import { changedPolicy, readPolicy } from "./observe.ts";
import { expectedRules, rulesetText } from "./ruleset.ts";

const INSTALLATION = "abcd1234";

type Verb = "add" | "delete";

/**
 * The table as the kernel keeps it: adding what is there with another value fails, and so does deleting what is not there, or a counter
 * that an element names.
 */
class ModelTable {
  readonly counters = new Set<string>();
  readonly places = new Map<string, Map<string, unknown>>();

  run(commands: readonly NftCommand[]): void {
    for (const command of commands) {
      for (const verb of ["add", "delete"] as const) {
        const { counter, element } = (command[verb] ?? {}) as {
          counter?: { name: string };
          element?: { name: string; elem: readonly unknown[] };
        };
        if (counter !== undefined) this.#counter(verb, counter.name);
        for (const item of element?.elem ?? []) this.#element(verb, element?.name ?? "", item);
      }
    }
  }

  #counter(verb: Verb, name: string): void {
    if (verb === "add") {
      this.counters.add(name);
      return;
    }
    const users = [...this.#place("dropped").values()].filter((item) => Array.isArray(item) && item[1] === name);
    assert.deepEqual(users, [], `${name} is in use`);
    assert.ok(this.counters.delete(name), `no counter ${name}`);
  }

  #element(verb: Verb, place: string, item: unknown): void {
    const marked = (Array.isArray(item) ? item[0] : item) as { elem: { val: unknown } };
    const key = JSON.stringify(marked.elem.val);
    const present = this.#place(place);
    if (verb === "delete") assert.ok(present.delete(key), `${place} has no ${key}`);
    else if (present.has(key)) assert.deepEqual(present.get(key), item, `${place} has another ${key}`);
    else present.set(key, item);
    if (place === "dropped" && Array.isArray(item) && verb === "add") assert.ok(this.counters.has(String(item[1])));
  }

  #place(name: string): Map<string, unknown> {
    const place = this.places.get(name) ?? new Map<string, unknown>();
    this.places.set(name, place);
    return place;
  }

  /** As `nft -j list table` shows it. */
  list(): unknown[] {
    const counters = [...this.counters].map((name) => ({ counter: { name, packets: 0, bytes: 0 } }));
    const sets = [...this.places].map(([name, elements]) => ({ set: { name, elem: [...elements.values()] } }));
    return [{ table: { name: "volant" } }, ...counters, ...sets];
  }

  observe(installation = INSTALLATION) {
    return readPolicy(installation, this.list());
  }
}

const byte = fc.integer({ min: 0, max: 255 });
const hex = (value: number) => value.toString(16).padStart(2, "0");
const entry: fc.Arbitrary<PolicyEntry> = fc.record({
  vmId: fc.integer({ min: 1, max: 12 }),
  tap: fc.integer({ min: 1, max: 12 }).map((n) => (n % 3 === 0 ? `tap${n}.by-hand` : `vttap-t${n}`)),
  mac: fc.tuple(byte, byte).map(([a, b]) => `02:00:00:00:${hex(a % 3)}:${hex(b)}`),
  mode: fc.constantFrom("bridged", "dhcp"),
  addresses: fc.array(
    byte.map((last) => `10.0.0.${last}`),
    { maxLength: 3 },
  ),
  leaseSeconds: fc.constantFrom(undefined, 0, 60, 0xffff_ffff),
  antiSpoof: fc.boolean(),
});

const entries = fc
  .uniqueArray(entry, { selector: ({ vmId }) => vmId })
  .map((list) => [...new Map(list.map((item) => [item.tap, item])).values()]);

function asObserved(list: readonly PolicyEntry[]) {
  return list
    .map(checkEntry)
    .toSorted((a, b) => a.vmId - b.vmId)
    .map(({ leaseSeconds, ...item }) =>
      // It is kept with the addresses.
      leaseSeconds === undefined || item.addresses.length === 0 ? item : { ...item, leaseSeconds },
    )
    .map((item) => (item.antiSpoof ? item : { vmId: item.vmId, tap: item.tap, antiSpoof: false }));
}

test("from any entries to any others: the table then shows just the others, and there is nothing left to do", () => {
  fc.assert(
    fc.property(entries, entries, (before, after) => {
      const table = new ModelTable();
      table.run(compilePolicyTable(INSTALLATION, before));
      assert.deepEqual(table.observe().entries, asObserved(before));
      table.run(changePolicy(INSTALLATION, table.observe().elements, after));
      assert.deepEqual(table.observe().entries, asObserved(after));
      assert.deepEqual(table.observe().damaged, []);
      assert.deepEqual(changePolicy(INSTALLATION, table.observe().elements, after), []);
    }),
  );
});

test("from any part of a table that somebody damaged: it is whole again", () => {
  fc.assert(
    fc.property(entries, fc.infiniteStream(fc.boolean()), (list, keep) => {
      const table = new ModelTable();
      table.run(compilePolicyTable(INSTALLATION, list));
      for (const elements of table.places.values()) {
        for (const key of elements.keys()) if (keep.next().value === false) elements.delete(key);
      }
      table.run(changePolicy(INSTALLATION, table.observe().elements, list));
      assert.deepEqual(table.observe().entries, asObserved(list));
    }),
  );
});

test("what a change is said to leave is what reading then shows, from a damaged table, too, and for some VMs only", () => {
  const scopes = fc.option(fc.uniqueArray(fc.integer({ min: 1, max: 12 })), { nil: undefined });
  fc.assert(
    fc.property(entries, entries, fc.infiniteStream(fc.boolean()), scopes, (before, after, keep, scoped) => {
      const table = new ModelTable();
      table.run(compilePolicyTable(INSTALLATION, before));
      for (const elements of table.places.values()) {
        for (const key of elements.keys()) if (keep.next().value === false) elements.delete(key);
      }
      const scope = scoped === undefined ? undefined : new Set(scoped);
      // Two VMs can't have one tap: what is out of scope keeps its own.
      const wanted = scope === undefined ? after : after.filter(({ vmId }) => scope.has(vmId));
      const observed = table.observe();
      fc.pre(
        scope === undefined ||
          !observed.elements.some(
            (element) => "tap" in element && !scope.has(element.vmId) && wanted.some(({ tap }) => tap === element.tap),
          ),
      );
      const said = changedPolicy(observed, wanted, scope);
      table.run(changePolicy(INSTALLATION, observed.elements, wanted, scope));
      const read = table.observe();
      const sorted = (elements: readonly PolicyElement[]): string[] => elements.map(elementKey).toSorted();
      assert.deepEqual(said.entries, read.entries);
      assert.deepEqual(said.damaged, read.damaged);
      assert.deepEqual(sorted(said.elements), sorted(read.elements));
    }),
  );
});

test("putting an entry in twice is putting it in once, and taking it out leaves nothing", () => {
  fc.assert(
    fc.property(entry, (item) => {
      const table = new ModelTable();
      table.run(addEntry(INSTALLATION, item));
      const once = table.list();
      table.run(addEntry(INSTALLATION, item));
      assert.deepEqual(table.list(), once);
      table.run(removeEntry(INSTALLATION, item));
      assert.deepEqual(table.observe().elements, []);
    }),
  );
});

test("only the VMs in scope change", () => {
  fc.assert(
    fc.property(entries, fc.integer({ min: 1, max: 12 }), (list, vmId) => {
      const table = new ModelTable();
      table.run(compilePolicyTable(INSTALLATION, list));
      table.run(changePolicy(INSTALLATION, table.observe().elements, [], new Set([vmId])));
      assert.deepEqual(table.observe().entries, asObserved(list.filter((item) => item.vmId !== vmId)));
    }),
  );
});

test("an installation sees nothing of another's, not even when one's id begins like the other's", () => {
  fc.assert(
    fc.property(entries, (list) => {
      const table = new ModelTable();
      table.run(compilePolicyTable("abcd12345", list));
      assert.deepEqual(table.observe().elements, []);
      assert.deepEqual(changePolicy(INSTALLATION, table.observe().elements, []), []);
    }),
  );
});

test("what another installation says of a tap gives way as a whole, and nothing else of that installation does", () => {
  fc.assert(
    fc.property(entries, entries, fc.infiniteStream(fc.boolean()), (theirs, ours, keep) => {
      const table = new ModelTable();
      table.run(compilePolicyTable("ffff0000", theirs));
      for (const elements of table.places.values()) {
        for (const key of elements.keys()) if (keep.next().value === false) elements.delete(key);
      }
      const before = table.observe();
      const spared = table
        .observe("ffff0000")
        .elements.filter((element) => "tap" in element && !ours.some(({ tap }) => tap === element.tap));
      table.run([
        ...removeOthers(givingWay(before.others, ours)),
        ...changePolicy(INSTALLATION, before.elements, ours),
      ]);
      assert.deepEqual(table.observe().entries, asObserved(ours));
      const left = table.observe("ffff0000").elements;
      assert.deepEqual(
        left.filter((element) => "tap" in element),
        spared,
      );
      // A counter goes with what it counts for.
      const counted = new Set(left.flatMap((element) => (element.in === "counters" ? [element.vmId] : [])));
      for (const element of spared) if (element.in === "dropped") assert.ok(counted.has(element.vmId));
      const said = changedPolicy(before, ours, undefined);
      const sorted = (others: typeof said.others) => others.map((one) => JSON.stringify(one)).toSorted();
      assert.deepEqual(sorted(said.others), sorted(table.observe().others));
    }),
  );
});

test("a guarded entry never lets its tap be anything but itself", () => {
  fc.assert(
    fc.property(entry, (item) => {
      const checked = checkEntry(item);
      for (const element of elementsOf(checked)) {
        assert.equal(element.vmId, checked.vmId);
        if ("tap" in element) assert.equal(element.tap, checked.tap);
        if ("mac" in element) assert.equal(element.mac, checked.mac);
        if (element.in === "unguarded") assert.equal(item.antiSpoof, false);
        if (element.in === "dhcp_hardware") assert.equal(item.mode, "dhcp");
        if (element.in === "leases") assert.ok(checked.addresses.includes(element.address));
      }
    }),
  );
});

test("what the rules could not hold to is refused, and names the VM and the fault", () => {
  const good: PolicyEntry = {
    vmId: 7,
    tap: "vttap-web",
    mac: "02:00:00:00:00:07",
    mode: "bridged",
    addresses: ["10.0.0.7"],
    antiSpoof: true,
  };
  checkEntry(good);
  for (const [change, words] of [
    [{ vmId: 0 }, /no valid id/],
    [{ tap: "" }, /can't name/],
    [{ tap: "tap*" }, /can't name/],
    [{ tap: "vttap-*" }, /can't name/],
    [{ tap: "vttap-" }, /can't name/],
    [{ tap: "vttap-0123456789" }, /can't name/],
    [{ mac: "02:00:00:00:00" }, /no valid MAC/],
    [{ mac: "03:00:00:00:00:07" }, /no sender/],
    [{ mac: "00:00:00:00:00:00" }, /no sender/],
    [{ addresses: ["10.0.0.0/8"] }, /an IPv4 address/],
    [{ addresses: ["fe80::1"] }, /an IPv4 address/],
    [{ addresses: ["0.0.0.0"] }, /an IPv4 address/],
    [{ addresses: ["224.0.0.1"] }, /an IPv4 address/],
    [{ addresses: ["255.255.255.255"] }, /an IPv4 address/],
    [{ leaseSeconds: -1 }, /a lease of -1 seconds/],
    [{ leaseSeconds: 2 ** 32 }, /32 bits/],
    [{ mode: "vsock" as "bridged" }, /unknown mode/],
    [{ antiSpoof: undefined as unknown as boolean }, /does not say/],
  ] as const) {
    assert.throws(() => checkEntry({ ...good, ...change }), { code: "invalid", message: words });
  }
  assert.throws(() => compilePolicyTable(INSTALLATION, [good, { ...good, vmId: 8 }]), /two policies for the tap/);
  assert.throws(() => compilePolicyTable(INSTALLATION, [good, { ...good, tap: "vttap-b" }]), /two policies for the VM/);
  assert.throws(() => compilePolicyTable("no such id", [good]), /no installation id/);
});

test("any JSON at all is read without failing", () => {
  fc.assert(fc.property(fc.array(fc.jsonValue()), (items) => void readPolicy(INSTALLATION, items)));
  const objects = fc.record(
    { set: fc.jsonValue(), map: fc.jsonValue(), counter: fc.jsonValue(), chain: fc.jsonValue(), rule: fc.jsonValue() },
    { requiredKeys: [] },
  );
  fc.assert(fc.property(fc.array(objects), (items) => void readPolicy(INSTALLATION, items)));
});

test("every rule bears a comment of its own, and every chain that is not hooked ends in a refusal or hands on", () => {
  const comments = [...expectedRules()].flatMap(([chain, rules]) => rules.map((rule) => `${chain} ${rule}`));
  assert.equal(new Set(comments).size, comments.length);
  for (const chain of rulesetText().split("\tchain ").slice(1)) {
    const rules = chain.split("\n").filter((line) => line.includes(" comment "));
    if (!chain.includes("type filter hook")) {
      assert.match(rules.at(-1) ?? "", /goto (?:refused|bridged_guest) comment| drop comment/);
    }
  }
});
