import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { judgeChain } from "./check-firewall.ts";
import { findFrontends, parseFilterTable, parseRuleset } from "./parse-firewall.ts";

const OURS = '-A FORWARD -i vbr0 -m comment --comment "volant:vbr0" -j ACCEPT';

test("iptables' list tells the policy, and a drop before our rules from one after them", () => {
  const filter = (...lines: string[]) =>
    parseFilterTable(["-P FORWARD DROP", "-N ufw-user-forward", ...lines, ""].join("\n"), "vbr0");
  assert.deepEqual(filter(OURS, "-A FORWARD -j DROP"), {
    forwardPolicy: "DROP",
    dropBeforeOurs: false,
    chains: ["ufw-user-forward"],
  });
  assert.equal(filter("-A FORWARD -j REJECT --reject-with icmp-port-unreachable", OURS).dropBeforeOurs, true);
  assert.equal(filter("-A FORWARD -i eth0 -j DROP", OURS).dropBeforeOurs, false);
  assert.equal(parseFilterTable("-P FORWARD ACCEPT\n", "vbr0").forwardPolicy, "ACCEPT");
});

const chain = (policy: string, ...rules: unknown[][]): unknown[] => [
  { table: { family: "inet", name: "x" } },
  { chain: { family: "inet", table: "x", name: "f", hook: "forward", policy } },
  ...rules.map((expr) => ({ rule: { family: "inet", table: "x", chain: "f", expr } })),
];
const meta = (key: string, right: unknown, op = "==") => ({ match: { op, left: { meta: { key } }, right } });
const established = { match: { op: "in", left: { ct: { key: "state" } }, right: ["established", "related"] } };

function judgement(items: readonly unknown[]): string {
  const [first] = parseRuleset(items, "vbr0").forward;
  assert.ok(first !== undefined);
  return judgeChain(first);
}

test("a chain of another table is judged by what it does with a guest's new connection", () => {
  assert.equal(judgement(chain("accept")), "passes");
  assert.equal(judgement(chain("drop")), "drops");
  assert.equal(judgement(chain("drop", [established, { accept: null }])), "drops");
  assert.equal(judgement(chain("drop", [meta("iifname", "vbr0"), { accept: null }])), "passes");
  assert.equal(judgement(chain("drop", [meta("oifname", { set: ["vbr0", "eth0"] }), { accept: null }])), "passes");
  assert.equal(judgement(chain("drop", [meta("iifname", "vbr0", "!="), { accept: null }])), "drops");
  assert.equal(judgement(chain("accept", [{ counter: { packets: 0 } }, { reject: { type: "icmpx" } }])), "drops");
  assert.equal(judgement(chain("accept", [meta("oifname", "eth0"), { drop: null }])), "passes");
  assert.equal(judgement(chain("accept", [meta("iifname", "vbr0"), { drop: null }])), "drops");
  assert.equal(judgement(chain("drop", [{ jump: { target: "zones" } }])), "may_drop");
});

test("firewalld is known by its table or chains, ufw by its chains", () => {
  assert.deepEqual(findFrontends(["filter"], ["FORWARD", "DOCKER"]), []);
  assert.deepEqual(findFrontends(["firewalld"], []), ["firewalld"]);
  assert.deepEqual(findFrontends([], ["ufw-user-forward", "FORWARD_IN_ZONES"]), ["firewalld", "ufw"]);
});

test("whatever nft prints, the parser passes over what it does not know", () => {
  fc.assert(fc.property(fc.array(fc.jsonValue()), (items) => void parseRuleset(items, "vbr0")));
  const rule = fc.record({
    rule: fc.record({
      family: fc.constant("inet"),
      table: fc.constant("x"),
      chain: fc.constant("f"),
      expr: fc.jsonValue(),
    }),
  });
  fc.assert(fc.property(fc.array(rule), (rules) => void judgement([...chain("drop"), ...rules])));
});
