import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { blockOf } from "../ipv4.ts";
import { judgeChain, parseIptablesForward, parseRuleset } from "../setup/forward-chains.ts";
import { findFrontends, parseFilterTable } from "./parse-firewall.ts";

const OURS = ["-i", "-o"].map((way) => `-A FORWARD ${way} vbr0 -m comment --comment "volant:vbr0" -j ACCEPT`);

const guests = { bridge: "vbr0", block: blockOf(0xc0a87f00, 24) };
const filter = (...lines: string[]) =>
  parseFilterTable(["-P FORWARD DROP", "-N ufw-user-forward", ...lines, ""].join("\n"), guests);

test("iptables' list tells the policy, and a drop before our rules from one after them", () => {
  assert.deepEqual(filter(...OURS, "-A FORWARD -j DROP"), {
    forwardPolicy: "DROP",
    droppedBy: undefined,
    chains: ["ufw-user-forward"],
  });
  assert.equal(parseFilterTable("-P FORWARD ACCEPT\n", guests).forwardPolicy, "ACCEPT");
});

test("what certainly drops packets from or to guests before our rules is found, in chains that are jumped to, too; what may be about others is not", () => {
  for (const drop of [
    "-A FORWARD -j REJECT --reject-with icmp-port-unreachable",
    "-A FORWARD -i vbr0 -j DROP",
    "-A FORWARD -o vbr+ -j DROP",
    '-A FORWARD -i vbr0 ! -o vbr0 -m comment --comment "no \\"guests\\" -j ACCEPT" -j DROP',
    "-A FORWARD ! -i eth0 -j DROP",
    "-A FORWARD -s 192.168.0.0/16 -j DROP",
    "-A FORWARD -d 192.168.127.0/24 -o vbr0 -j DROP",
  ]) {
    assert.equal(filter(drop, ...OURS).droppedBy, drop);
  }
  for (const other of [
    "-A FORWARD -i eth0 -j DROP",
    "-A FORWARD -i eth0 -o vbr0 -j DROP",
    "-A FORWARD ! -i vbr0 -o eth0 -j DROP",
    "-A FORWARD -s 192.168.127.5/32 -j DROP",
    "-A FORWARD -s 10.0.0.0/8 -j DROP",
    "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
    "-A FORWARD -i vbr0 -p tcp -m tcp --dport 25 -j DROP",
    "-A FORWARD -i vbr0",
    "-A FORWARD -i vbr0 -j LOG --log-prefix drop",
  ]) {
    assert.equal(filter(other, ...OURS).droppedBy, undefined, other);
  }
  const docker = ["-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1"];
  const isolation = ["-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DROP", "-A DOCKER-USER -j RETURN"];
  assert.equal(filter(...docker, ...OURS, ...isolation, "-A DOCKER-USER -j DROP").droppedBy, undefined);
  const user = ["-A DOCKER-USER -i eth0 -j RETURN", "-A DOCKER-USER -j DROP"];
  assert.equal(filter(...docker, ...OURS, ...user).droppedBy, user[1]);
  assert.equal(
    filter("-A FORWARD -g DOCKER-USER", ...OURS, "-A DOCKER-USER -s 10.0.0.0/8 -j DROP").droppedBy,
    undefined,
  );
  assert.equal(filter("-A FORWARD -j loop", "-A loop -j loop", "-A FORWARD -j DROP").droppedBy, "-A FORWARD -j DROP");
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

test("the legacy iptables' chain is judged like any other", () => {
  const judge = (...lines: string[]) => judgeChain(parseIptablesForward([...lines, ""].join("\n"), "vbr0"));
  assert.equal(judge("-P FORWARD ACCEPT"), "passes");
  assert.equal(judge("-P FORWARD DROP"), "drops");
  assert.equal(judge("-P FORWARD DROP", "-A FORWARD -j DOCKER-USER"), "may_drop");
  assert.equal(judge("-P FORWARD DROP", "-A FORWARD -i vbr0 -j ACCEPT", "-A FORWARD -o vbr0 -j ACCEPT"), "passes");
  assert.equal(judge("-P FORWARD DROP", "-A FORWARD ! -i vbr0 -j ACCEPT"), "drops");
  assert.equal(judge("-P FORWARD ACCEPT", "-A FORWARD -i eth0 -j DROP"), "passes");
  assert.equal(judge("-P FORWARD ACCEPT", "-A FORWARD -j REJECT --reject-with icmp-port-unreachable"), "drops");
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
