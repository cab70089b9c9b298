/** Set-up with `--firewall nftables`: one table of ours, beside whatever else there is. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import test, { afterEach } from "node:test";
import { fileURLToPath } from "node:url";
import { furtherAlias, type Progress, restoreNetwork, runSetup, undoSetup } from "@volant/host";
import { enterOwnNamespace, ip } from "../namespace.ts";
import { DOCKER_RULES, networkState, run, type Scratch, scratchSetup } from "./setup-state.ts";

enterOwnNamespace(import.meta.url);

const killedProgram = fileURLToPath(new URL("setup-killed.ts", import.meta.url));
const change = { firewall: "nftables" } as const;

afterEach(() => void run("nft", "flush", "ruleset"));

async function leavingNoTrace(work: (scratch: Scratch) => Promise<void>): Promise<void> {
  const before = networkState();
  using scratch = scratchSetup(change);
  await work(scratch);
  assert.deepEqual(networkState(), before);
  assert.deepEqual(readdirSync(scratch.folder), []);
}

function runKilled(mode: "setup" | "undo", { settings }: Scratch, effects: number): boolean {
  const args = [killedProgram, mode, settings.workDir, String(effects), JSON.stringify(change)];
  const { status, signal, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  assert.ok(status === 0 || signal === "SIGKILL", stderr);
  return signal === "SIGKILL";
}

async function setupTwiceAndUndo({ host, settings }: Scratch): Promise<void> {
  await runSetup(host, settings);
  const table = run("nft", "-s", "list", "table", "ip", "volant-vbr0");
  assert.match(table, /ip saddr 192\.168\.127\.0\/24 oifname != "vbr0" masquerade comment "volant:vbr0"/);
  assert.match(table, /iifname "vbr0" accept comment "volant:vbr0"\n\s+oifname "vbr0" accept comment "volant:vbr0"/);
  assert.doesNotMatch(run("iptables-save"), /vbr0/, "nothing of ours is in a table of somebody else's");
  const after = networkState();
  const progress: Progress[] = [];
  await runSetup(host, settings, { onProgress: (line) => progress.push(line) });
  assert.deepEqual([...new Set(progress.map(({ outcome }) => outcome))], ["unchanged"]);
  assert.deepEqual(networkState(), after);
  // A set-up that does not say which firewall goes on with the one that is there.
  const { firewall: _, ...silent } = settings;
  await runSetup(host, { ...silent, firewall: undefined });
  assert.deepEqual(networkState(), after);
  await undoSetup(host);
}

test("the table is made, a second set-up changes nothing, and undo leaves no trace", () =>
  leavingNoTrace(setupTwiceAndUndo));

test("the same beside Docker's rules, whose policy of DROP is told of with what lets guests pass", async () => {
  execFileSync("iptables-restore", { input: DOCKER_RULES });
  await leavingNoTrace(async (scratch) => {
    const { notes } = await runSetup(scratch.host, scratch.settings);
    const note = notes.find((text) => text.startsWith("the chain FORWARD of table ip filter drops what"));
    assert.match(
      note ?? "",
      /: iptables -w -I FORWARD 1 -i vbr0 -j ACCEPT && iptables -w -I FORWARD 1 -o vbr0 -j ACCEPT$/,
    );
    await undoSetup(scratch.host);
    await setupTwiceAndUndo(scratch);
  });
});

test("set-up and undo that are killed between any two effects are undone without a trace", async () => {
  for (const mode of ["setup", "undo"] as const) {
    let effects = 0;
    // An undo takes as long as all the rest: every second of its effects will do.
    for (let killed = true; killed; effects += mode === "undo" ? 2 : 1) {
      await leavingNoTrace(async (scratch) => {
        if (mode === "undo") await runSetup(scratch.host, scratch.settings);
        killed = runKilled(mode, scratch, effects);
        await undoSetup(scratch.host);
      });
    }
    assert.ok(effects > 8, `only ${effects} effects`);
  }
});

test("a table that is gone, and one that lacks a rule or has them in another order, is put right", () =>
  leavingNoTrace(async ({ host, settings }) => {
    await runSetup(host, settings);
    const whole = run("nft", "-s", "list", "ruleset");
    for (const damage of [
      ["delete", "table", "ip", "volant-vbr0"],
      ["flush", "chain", "ip", "volant-vbr0", "forward"],
      ["insert", "rule", "ip", "volant-vbr0", "forward", "iifname", "vbr0", "drop", "comment", '"volant:vbr0"'],
      ["chain", "ip", "volant-vbr0", "forward", "{", "policy", "drop", ";", "}"],
    ]) {
      run("nft", ...damage);
      assert.notEqual(run("nft", "-s", "list", "ruleset"), whole);
      const { restored } = await restoreNetwork(host);
      assert.equal(restored.length, 1, damage.join(" "));
      assert.equal(run("nft", "-s", "list", "ruleset"), whole);
    }
    await undoSetup(host);
  }));

test("what someone else put into the table stays, and so does the table; ours go", async () => {
  using scratch = scratchSetup(change);
  await runSetup(scratch.host, scratch.settings);
  run("nft", "add", "rule", "ip", "volant-vbr0", "forward", "iifname", "eth9", "counter", "accept");
  const { steps } = await undoSetup(scratch.host);
  assert.match(steps.find(({ title }) => title === "table ip volant-vbr0")?.reason ?? "", /someone else/);
  const left = run("nft", "-s", "list", "table", "ip", "volant-vbr0");
  assert.match(left, /iifname "eth9" counter accept/);
  assert.doesNotMatch(left, /vbr0"/);
});

test("one firewall is not exchanged for the other without an undo", () =>
  leavingNoTrace(async ({ host, settings }) => {
    await runSetup(host, settings);
    const other = { ...settings, firewall: "iptables" } as const;
    await assert.rejects(runSetup(host, other), /set up with nftables, and iptables was asked for/);
    await undoSetup(host);
  }));

test("frames on further bridges are accepted and not tracked while there are any; what is left of those that went is no reason to write anew", () =>
  leavingNoTrace(async ({ host, settings }) => {
    await runSetup(host, settings);
    for (const number of [1, 2]) {
      ip("link", "add", `vbr0-${number}`, "type", "bridge");
      const mark = { installation: "abcdef01", bridge: "vbr0", number };
      ip("link", "set", `vbr0-${number}`, "alias", furtherAlias(mark, "bridge"));
    }
    const restore = async () => (await restoreNetwork(host)).restored.length;
    assert.equal(await restore(), 1);
    const table = (): string => run("nft", "-s", "list", "table", "ip", "volant-vbr0");
    for (const name of ["vbr0-1", "vbr0-2"]) {
      assert.match(table(), new RegExp(`iifname "${name}" notrack comment "volant:vbr0"`));
      assert.match(table(), new RegExp(`iifname "${name}" oifname "${name}" accept comment "volant:vbr0"`));
    }
    assert.equal(await restore(), 0, "all of it is recognised");
    ip("link", "delete", "vbr0-2");
    assert.equal(await restore(), 1);
    assert.doesNotMatch(table(), /vbr0-2/);
    ip("link", "delete", "vbr0-1");
    await restore();
    assert.doesNotMatch(table(), /accept.*vbr0-1/);
    assert.equal(await restore(), 0);
    await undoSetup(host);
  }));
