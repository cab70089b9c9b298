import assert from "node:assert/strict";
import test from "node:test";
import type { Vm } from "@volant/contract";
import fc from "fast-check";
import { ListBodies, type ListBody, listBody } from "./list-body.ts";

/** No more than text matters here: names with quotes, and characters of one to four bytes. */
const vm = fc.string({ unit: "grapheme" }).map((name) => ({ name }) as unknown as Vm);

test("whatever became of a list of VMs, its body is that of a list that is written anew", () => {
  const change = fc.record({ at: fc.nat(), remove: fc.nat({ max: 3 }), insert: fc.array(vm, { maxLength: 3 }) });
  fc.assert(
    fc.property(fc.array(vm, { maxLength: 12 }), fc.array(change, { maxLength: 8 }), (first, changes) => {
      let vms: readonly Vm[] = first;
      let body: ListBody = listBody(vms);
      assert.equal(body.json.toString("utf8"), JSON.stringify(vms));
      for (const { at, remove, insert } of changes) {
        vms = vms.toSpliced(at % (vms.length + 1), remove, ...insert);
        body = listBody(vms, body);
        assert.equal(body.json.toString("utf8"), JSON.stringify(vms));
      }
    }),
  );
});

test("the same list has the same body, and bodies of other questions are apart from it", () => {
  const bodies = new ListBodies();
  const [some, others] = [[{ name: "a" }], [{ name: "b" }, { name: "c" }]] as unknown as [Vm[], Vm[]];
  const body = bodies.json("all", some);
  assert.equal(bodies.json("all", some), body);
  for (let page = 0; page < 20; page += 1) {
    assert.equal(bodies.json(`page ${page}`, others).toString("utf8"), JSON.stringify(others));
  }
  assert.equal(bodies.json("all", some).toString("utf8"), JSON.stringify(some), "also where it was forgotten");
});
