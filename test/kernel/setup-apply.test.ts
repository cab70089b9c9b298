import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { VolantError } from "@volant/contract";
import { bridgeAlias, bridgeMac, previewSetup, type Progress, restoreNetwork, runSetup, undoSetup } from "@volant/host";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { DOCKER_RULES, networkState, run, type Scratch, scratchSetup } from "./setup-state.ts";

enterOwnNamespace(import.meta.url);

/** The test leaves the namespace, and its own folder, as it found them. */
async function leavingNoTrace(
  work: (scratch: Scratch) => Promise<void>,
  before: Record<string, string> = networkState(),
): Promise<void> {
  using scratch = scratchSetup();
  await work(scratch);
  assert.deepEqual(networkState(), before);
  assert.deepEqual(readdirSync(scratch.folder), []);
}

function withDockerRules(work: () => Promise<void>): () => Promise<void> {
  return async () => {
    spawnSync("iptables-restore", { input: DOCKER_RULES });
    try {
      await work();
    } finally {
      run("nft", "flush", "ruleset");
    }
  };
}

async function setupShows({ host, settings }: Scratch): Promise<void> {
  await runSetup(host, settings);
  const [link] = ipJson("link", "show", "dev", "vbr0");
  assert.ok(link);
  assert.partialDeepStrictEqual(link, { linkinfo: { info_kind: "bridge" } });
  assert.equal(link["address"], bridgeMac(settings));
  assert.equal(link["ifalias"], bridgeAlias(settings));
  assert.ok((link["flags"] as string[]).includes("UP"));
  const [address] = ipJson("-4", "address", "show", "dev", "vbr0");
  assert.partialDeepStrictEqual(address, { addr_info: [{ local: "192.168.127.1", prefixlen: 24 }] });
  assert.equal(readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8"), "1\n");
  const rules = run("iptables-save");
  assert.match(
    rules,
    /-A POSTROUTING -s 192\.168\.127\.0\/24 ! -o vbr0 -m comment --comment "volant:vbr0" -j MASQUERADE/,
  );
  const forward = rules.split("\n").filter((line) => line.startsWith("-A FORWARD"));
  assert.deepEqual(forward.slice(0, 2), [
    '-A FORWARD -o vbr0 -m comment --comment "volant:vbr0" -j ACCEPT',
    '-A FORWARD -i vbr0 -m comment --comment "volant:vbr0" -j ACCEPT',
  ]);
}

async function setupTwiceAndUndo(scratch: Scratch): Promise<void> {
  await setupShows(scratch);
  const after = networkState();
  const progress: Progress[] = [];
  await runSetup(scratch.host, scratch.settings, { onProgress: (line) => progress.push(line) });
  assert.deepEqual([...new Set(progress.map(({ outcome }) => outcome))], ["unchanged"]);
  assert.equal(progress.length, 7);
  assert.deepEqual(networkState(), after);
  await undoSetup(scratch.host);
}

test("set-up shows in ip, iptables and sysctl; a second one changes nothing; undo leaves no trace", () =>
  leavingNoTrace(setupTwiceAndUndo));

test(
  "the same beside Docker's rules and a FORWARD policy of DROP",
  withDockerRules(() => leavingNoTrace(setupTwiceAndUndo)),
);

test("undo gives back forwarding as it was, link by link", async () => {
  ip("link", "add", "ve0", "type", "veth", "peer", "name", "ve1");
  try {
    writeFileSync("/proc/sys/net/ipv4/conf/ve0/forwarding", "1");
    writeFileSync("/proc/sys/net/ipv4/conf/all/accept_redirects", "0");
    await leavingNoTrace(async ({ host, settings }) => {
      await runSetup(host, settings);
      await undoSetup(host);
    });
    assert.equal(readFileSync("/proc/sys/net/ipv4/conf/ve0/forwarding", "utf8"), "1\n");
  } finally {
    ip("link", "delete", "ve0");
    writeFileSync("/proc/sys/net/ipv4/conf/all/accept_redirects", "1");
  }
});

test("forwarding that was on before stays on after undo", async () => {
  writeFileSync("/proc/sys/net/ipv4/ip_forward", "1");
  try {
    await leavingNoTrace(async ({ host, settings }) => {
      await runSetup(host, settings);
      await undoSetup(host);
    });
  } finally {
    writeFileSync("/proc/sys/net/ipv4/ip_forward", "0");
  }
});

const killedProgram = fileURLToPath(new URL("setup-killed.ts", import.meta.url));

/** Whether it was killed: false when it ended by itself before. */
function runKilled(mode: "setup" | "undo", { settings }: Scratch, effects: number): boolean {
  const args = [killedProgram, mode, settings.workDir, String(effects)];
  const { status, signal, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  assert.ok(status === 0 || signal === "SIGKILL", stderr);
  return signal === "SIGKILL";
}

test(
  "set-up killed between any two effects is undone without a trace, beside Docker's rules",
  withDockerRules(async () => {
    const before = networkState();
    let effects = 0;
    for (let killed = true; killed; effects += 1) {
      await leavingNoTrace(async (scratch) => {
        killed = runKilled("setup", scratch, effects);
        await undoSetup(scratch.host);
      }, before);
    }
    assert.ok(effects > 10, `only ${effects} effects`);
  }),
);

test("undo killed before any second one of its effects is finished by the next", async () => {
  const before = networkState();
  let effects = 0;
  for (let killed = true; killed; effects += 2) {
    await leavingNoTrace(async (scratch) => {
      await runSetup(scratch.host, scratch.settings);
      killed = runKilled("undo", scratch, effects);
      await undoSetup(scratch.host);
    }, before);
  }
  assert.ok(effects > 10, `only ${effects} effects`);
});

test("set-up killed in the middle is finished by the next", async () => {
  for (const effects of [2, 4, 7]) {
    await leavingNoTrace(async (scratch) => {
      assert.ok(runKilled("setup", scratch, effects));
      await setupShows(scratch);
      await undoSetup(scratch.host);
    });
  }
});

test("restoring puts back what was removed, and nothing when nothing is missing", () =>
  leavingNoTrace(async ({ host, settings }) => {
    await runSetup(host, settings);
    const whole = networkState();
    delete whole["links"];
    delete whole["routes"];
    ip("link", "delete", "vbr0");
    run("nft", "flush", "ruleset");
    writeFileSync("/proc/sys/net/ipv4/ip_forward", "0");
    assert.equal((await restoreNetwork(host)).restored.length, 7);
    assert.equal(networkState()["nftables"], whole["nftables"]);
    ip("link", "set", "vbr0", "down");
    ip("link", "set", "vbr0", "address", "02:00:00:00:00:01");
    assert.deepEqual((await restoreNetwork(host)).restored, [`MAC ${bridgeMac(settings)} of vbr0`, "vbr0 up"]);
    assert.deepEqual(await restoreNetwork(host), { recorded: true, restored: [] });
    await undoSetup(host);
  }));

test("refusals name the reason and leave nothing behind", async () => {
  const refused = async (code: string, pattern: RegExp, adopt = false): Promise<void> => {
    await leavingNoTrace(async ({ host, settings }) => {
      await assert.rejects(runSetup(host, { ...settings, adopt }), (error: unknown) => {
        assert.ok(error instanceof VolantError, String(error));
        assert.equal(error.code, code);
        assert.match(error.message, pattern);
        return true;
      });
    });
  };
  ip("link", "add", "ve0", "type", "veth", "peer", "name", "ve1");
  // Without an address that the kernel makes, and has on trial for a second or two: that end would be a difference.
  ip("link", "set", "ve0", "addrgenmode", "none");
  ip("link", "set", "ve0", "up");
  ip("address", "add", "192.168.0.7/16", "dev", "ve0");
  await refused("in_use", /^the subnet 192\.168\.127\.0\/24 overlaps the address 192\.168\.0\.7\/16 of ve0$/);
  ip("address", "flush", "dev", "ve0");
  ip("route", "add", "192.168.127.128/25", "dev", "ve0");
  await refused("in_use", /^the subnet 192\.168\.127\.0\/24 overlaps the route to 192\.168\.127\.128\/25 by ve0$/);
  ip("link", "delete", "ve0");
  ip("link", "add", "vbr0", "type", "veth", "peer", "name", "ve1");
  await refused("exists", /vbr0, and it is not a bridge/, true);
  ip("link", "delete", "vbr0");
  ip("link", "add", "vbr0", "type", "bridge");
  await refused("exists", /vbr0 exists already and was not made by volar setup/);
  ip("link", "set", "vbr0", "addrgenmode", "none");
  ip("link", "set", "vbr0", "up");
  ip("address", "add", "10.0.0.1/24", "dev", "vbr0");
  ip("route", "add", "default", "via", "10.0.0.2", "dev", "vbr0");
  await refused("in_use", /the default route leaves by vbr0/, true);
  ip("link", "delete", "vbr0");
});

test("a bridge that was adopted keeps its MAC, its addresses and its state, and stays after undo", async () => {
  ip("link", "add", "vbr0", "address", "02:00:00:00:00:07", "type", "bridge");
  ip("address", "add", "10.1.2.3/24", "dev", "vbr0");
  // The first time that it comes up it gets its queue; set-up shall not be what brings that about.
  ip("link", "set", "vbr0", "up");
  ip("link", "set", "vbr0", "down");
  try {
    await leavingNoTrace(async ({ host, settings }) => {
      await runSetup(host, { ...settings, adopt: true });
      const [link] = ipJson("link", "show", "dev", "vbr0");
      assert.equal(link?.["address"], "02:00:00:00:00:07");
      const plan = await previewSetup(host, settings);
      assert.deepEqual(plan.refusals, []);
      await undoSetup(host);
    });
  } finally {
    ip("link", "delete", "vbr0");
  }
});

test("undo refuses while a port is on the bridge, and changes nothing", () =>
  leavingNoTrace(async ({ host, settings }) => {
    await runSetup(host, settings);
    ip("link", "add", "ve0", "type", "veth", "peer", "name", "ve1");
    ip("link", "set", "ve0", "master", "vbr0");
    const before = networkState();
    await assert.rejects(undoSetup(host), /the bridge vbr0 still has the port ve0/);
    assert.deepEqual(networkState(), before);
    ip("link", "delete", "ve0");
    await undoSetup(host);
  }));

test("a bridge that someone else made in place of ours survives undo", async () => {
  using scratch = scratchSetup();
  await runSetup(scratch.host, scratch.settings);
  ip("link", "delete", "vbr0");
  ip("link", "add", "vbr0", "type", "bridge");
  const { steps } = await undoSetup(scratch.host);
  assert.equal(steps.find(({ title }) => title === "bridge vbr0")?.outcome, "kept");
  assert.equal(ipJson("link", "show", "dev", "vbr0").length, 1);
  ip("link", "delete", "vbr0");
});

test("a record of a namespace that still exists is not touched from another", async () => {
  using scratch = scratchSetup();
  await runSetup(scratch.host, scratch.settings);
  const program = `
    const { LinuxHost, undoSetup } = await import("@volant/host");
    await undoSetup(new LinuxHost(process.argv[1])).then(() => process.exit(0), (error) => console.log(error.message));
    process.exit(1);`;
  const args = ["--net", process.execPath, "--input-type=module", "-e", program, scratch.settings.workDir];
  const { stdout, status } = spawnSync("unshare", args, {
    encoding: "utf8",
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
  });
  assert.equal(status, 1);
  assert.match(stdout, /is in another network namespace/);
  await undoSetup(scratch.host);
  assert.deepEqual(readdirSync(join(scratch.folder)), []);
});
