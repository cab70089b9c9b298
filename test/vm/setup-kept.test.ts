/**
 * What set-up recorded is back by itself, whoever takes it away and however, while volantd runs. VOLANT_TEST_TIMES=5 does each damage so often,
 * and prints how long it took.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { Netlink, watchForwarding, watchNftables } from "@volant/netlink";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { within } from "../patience.ts";
import { type House, openHouse } from "./house.ts";

enterOwnNamespace(import.meta.url);

const TIMES = Number(process.env["VOLANT_TEST_TIMES"] ?? "1");
/** iptables-legacy's rules change without a word. */
const UNTOLD_EVERY_MS = 50;
const LEGACY = "/usr/sbin/iptables-legacy";
const FORWARDING = "/proc/sys/net/ipv4/ip_forward";
const BRIDGE_FORWARDING = "/proc/sys/net/ipv4/conf/vbr0/forwarding";

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

function feed(program: string, input: string, ...args: string[]): void {
  execFileSync(program, args, { input, stdio: ["pipe", "ignore", "pipe"] });
}

/** All that set-up made, as text. */
function parts(firewall: () => string): string {
  const [bridge] = ipJson("link", "show").filter(({ ifname }) => ifname === "vbr0");
  if (bridge === undefined) return "there is no bridge";
  const addresses = ipJson("-4", "address", "show", "dev", "vbr0").flatMap((entry) => entry["addr_info"] as object[]);
  return [
    `MAC ${String(bridge["address"])}, ${(bridge["flags"] as string[]).includes("UP") ? "up" : "down"}`,
    ...addresses.map((address) => `address ${String(("local" in address && address.local) || "")}`),
    `forwarding ${readFileSync(FORWARDING, "utf8").trim()}, of the bridge ${readFileSync(BRIDGE_FORWARDING, "utf8").trim()}`,
    firewall(),
  ].join("\n");
}

const ourRules = (program: string) => () =>
  run(program)
    .split("\n")
    .filter((line) => line.startsWith("-A") && line.includes("volant:vbr0"))
    // Each is put first in its chain, and their order is of no account.
    .toSorted()
    .join("\n");

const ourTable = () => {
  try {
    return run("nft", "-s", "list", "table", "ip", "volant-vbr0");
  } catch {
    return "there is no table";
  }
};

/** Damages the host until it is seen that it is damaged, and waits until it is whole. Gives the time from one to the other, in milliseconds. */
async function damageAndWait(house: House, damage: () => void, firewall: () => string): Promise<number> {
  const whole = parts(firewall);
  const stop = new AbortController();
  const { signal } = stop;
  const netlink = await Netlink.open();
  let news = Promise.withResolvers<void>();
  const follow = async (events: AsyncIterable<unknown>) => {
    for await (const _ of events) news.resolve();
  };
  const following = [
    follow(watchNftables(signal)),
    follow(watchForwarding(signal)),
    follow(netlink.subscribe(["link", "address"], { signal })),
  ];
  const timer = setInterval(() => news.resolve(), UNTOLD_EVERY_MS);
  const startedMs = performance.now();
  try {
    damage();
    for (;;) {
      news = Promise.withResolvers<void>();
      const now = parts(firewall);
      if (now === whole) return performance.now() - startedMs;
      const seen = () => `\n${now}\ninstead of\n${whole}\nvolantd said:\n${house.log.slice(-2000)}`;
      await within(news.promise, "news of the host", seen);
      const spentMs = performance.now() - startedMs;
      assert.ok(spentMs < 120_000, `it is not whole after ${Math.round(spentMs)} ms: ${seen()}`);
    }
  } finally {
    clearInterval(timer);
    stop.abort();
    await Promise.all(following);
    await netlink.close();
  }
}

const link: Readonly<Record<string, () => void>> = {
  "the bridge deleted": () => void ip("link", "delete", "vbr0"),
  "the bridge's MAC changed": () => void ip("link", "set", "dev", "vbr0", "address", "06:00:00:00:00:01"),
  "forwarding turned off": () => writeFileSync(FORWARDING, "0"),
  "forwarding of the bridge turned off": () => writeFileSync(BRIDGE_FORWARDING, "0"),
};

/** As firewalld does it: everything goes, and its own comes in several transactions. */
function reload(): void {
  run("nft", "flush", "ruleset");
  run("nft", "add", "table", "inet", "reloaded");
  const chain = (name: string) => `chain ${name} {\ntype filter hook ${name} priority 10; policy accept;\n}\n`;
  feed("nft", `table inet reloaded {\n${chain("forward")}}\n`, "-f", "-");
  feed("nft", `flush ruleset\ntable inet reloaded {\n${chain("input")}}\n`, "-f", "-");
  feed("nft", `table inet reloaded {\n${chain("output")}}\n`, "-f", "-");
}

const emptyTables = "*nat\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 192.0.2.1/32 -j DROP\nCOMMIT\n";

const deleteRule = (iptables: string, table: string, pattern: RegExp) => () => {
  const line = run(iptables, "-t", table, "-S")
    .split("\n")
    .find((rule) => pattern.test(rule));
  assert.ok(line !== undefined, "the rule is there");
  const [, ...words] = line.split(" ").map((word) => word.replaceAll('"', ""));
  run(iptables, "-t", table, "-D", ...words);
};

const byIptables = {
  ...link,
  "nft flush ruleset": () => void run("nft", "flush", "ruleset"),
  "a firewall reloaded": reload,
  "iptables-restore": () => feed("iptables-restore", emptyTables),
  "the masquerade deleted": deleteRule("iptables", "nat", /MASQUERADE/),
  "one accept deleted": deleteRule("iptables", "filter", /-o vbr0/),
};

const byNftables = {
  ...link,
  "nft flush ruleset": () => void run("nft", "flush", "ruleset"),
  "a firewall reloaded": reload,
  "the table deleted": () => void run("nft", "delete", "table", "ip", "volant-vbr0"),
  "one chain flushed": () => void run("nft", "flush", "chain", "ip", "volant-vbr0", "forward"),
  "one rule deleted": () => {
    const handle = /masquerade.*# handle (\d+)/.exec(run("nft", "-a", "list", "table", "ip", "volant-vbr0"))?.[1];
    assert.ok(handle !== undefined, "the rule is there");
    run("nft", "delete", "rule", "ip", "volant-vbr0", "postrouting", "handle", handle);
  },
};

const byLegacy = {
  "all rules flushed": () => {
    for (const table of ["nat", "filter"]) run("iptables-legacy", "-t", table, "-F");
  },
  "one accept deleted": deleteRule("iptables-legacy", "filter", /-i vbr0/),
  "forwarding turned off": () => writeFileSync(FORWARDING, "0"),
};

interface Kind {
  readonly name: string;
  readonly skip?: string | undefined;
  readonly env?: () => Readonly<Record<string, string>>;
  readonly setup?: readonly string[];
  readonly rules: () => string;
  readonly damages: Readonly<Record<string, () => void>>;
}

const folder = mkdtempSync(join(tmpdir(), "setup-kept-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Has everybody who looks for iptables find the legacy one. */
function legacyFirst(): Readonly<Record<string, string>> {
  symlinkSync(realpathSync(LEGACY), join(folder, "iptables"));
  return { PATH: `${folder}:${process.env["PATH"] ?? ""}` };
}

const kinds: readonly Kind[] = [
  { name: "iptables in nftables", rules: ourRules("iptables-save"), damages: byIptables },
  { name: "a table of nftables", setup: ["--firewall", "nftables"], rules: ourTable, damages: byNftables },
  {
    name: "the legacy iptables",
    skip: existsSync(LEGACY) ? undefined : "there is no legacy iptables here",
    env: legacyFirst,
    rules: ourRules("iptables-legacy-save"),
    damages: byLegacy,
  },
];

for (const { name, skip, env, setup, rules, damages } of kinds) {
  void test(`set up with ${name}`, { skip: skip ?? false }, async (t) => {
    const house = await openHouse({ env: env?.() ?? {}, setup });
    try {
      for (const [what, damage] of Object.entries(damages)) {
        await t.test(`${what}: all is back as it was`, async (each) => {
          const took: number[] = [];
          // Who damages it as often as this does is given way to by one that remembers.
          if (TIMES > 1) await house.stopVolantd().then(() => house.startVolantd());
          for (let time = 0; time < TIMES; time += 1) took.push(await damageAndWait(house, damage, rules));
          const sorted = took.map(Math.round).toSorted((a, b) => a - b);
          if (TIMES > 1) each.diagnostic(`${name}, ${what}: median ${sorted[TIMES >> 1]} of ${sorted.join(", ")} ms`);
        });
      }
      assert.doesNotMatch(house.log, /"level":"(error|fatal)"/);
    } finally {
      await house.close();
    }
    assert.doesNotMatch(rules(), /vbr0/, "an undo is not undone");
  });
}
