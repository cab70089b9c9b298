import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { enterOwnNamespace, ip } from "../namespace.ts";
import { testedPrograms } from "../vm/house.ts";
import { networkState } from "./setup-state.ts";

enterOwnNamespace(import.meta.url);

const main = fileURLToPath(new URL("../../packages/volar/src/main.ts", import.meta.url));

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function volar(args: readonly string[], env: Readonly<Record<string, string>> = {}): Outcome {
  const options = { encoding: "utf8", env: { ...process.env, ...env } } as const;
  return spawnSync(join(testedPrograms, "volar"), ["setup", ...args], options);
}

/** The same as nobody, who has neither rights nor programs. */
function volarAsNobody(args: readonly string[]): Outcome {
  const argv = ["--reuid=65534", "--regid=65534", "--clear-groups", process.execPath, main, "setup", ...args];
  return spawnSync("/usr/bin/setpriv", argv, { encoding: "utf8", env: { PATH: "" } });
}

function inScratch(work: (folder: string, workDir: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "volant-command-"));
  try {
    work(folder, join(folder, "work"));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test("set-up prints a line for each part, done and then unchanged; undo one for each, and then that there is nothing", () => {
  inScratch((folder, workDir) => {
    const before = networkState();
    const args = ["--work-dir", workDir, "--service-file", ""];
    const first = volar(args);
    assert.equal(first.status, 0, first.stderr);
    assert.equal(first.stdout.split("\n").filter((line) => line.startsWith("done")).length, 7);
    const second = volar(args);
    assert.deepEqual(
      second.stdout
        .trim()
        .split("\n")
        .map((line) => line.split(" ")[0]),
      Array.from({ length: 7 }, () => "unchanged"),
    );
    const undone = volar(["--undo"], { VOLANT_WORK_DIR: workDir });
    assert.equal(undone.status, 0, undone.stderr);
    assert.match(undone.stdout, /^undone +bridge vbr0$/m);
    const again = volar(["--undo", "--work-dir", workDir]);
    assert.deepEqual([again.status, again.stdout], [0, "nothing to undo: no set-up is recorded\n"]);
    assert.deepEqual(networkState(), before);
    assert.deepEqual(readdirSync(folder), []);
  });
});

test("--dry-run works for nobody with an empty PATH, and changes nothing", () => {
  inScratch((folder, workDir) => {
    const before = networkState();
    const { status, stdout, stderr } = volarAsNobody(["--dry-run", "--work-dir", workDir]);
    assert.deepEqual([status, stderr], [0, ""]);
    assert.match(stdout, /^ip link add name vbr0 address 06:41:6d:44:dc:f4 type bridge$/m);
    assert.match(stdout, /^sysctl -w net\/ipv4\/ip_forward=1$/m);
    assert.deepEqual(networkState(), before);
    assert.deepEqual(readdirSync(folder), []);
  });
});

test("--dry-run shows how a card moves and what nftables reads, for nobody with an empty PATH", () => {
  inScratch((_folder, workDir) => {
    ip("link", "add", "card0", "address", "52:54:00:00:00:09", "type", "veth", "peer", "name", "far");
    ip("address", "add", "10.77.0.5/24", "dev", "card0");
    ip("link", "set", "card0", "up");
    const before = networkState();
    const args = ["--dry-run", "--work-dir", workDir, "--firewall", "nftables", "--lan", "card0", "--lan-name", "lan0"];
    const { status, stdout, stderr } = volarAsNobody(args);
    assert.deepEqual([status, stderr], [0, ""]);
    assert.match(stdout, /^nft -f - <<'EOF'\nadd table ip volant-vbr0\n/m);
    assert.match(stdout, /^add rule ip volant-vbr0 forward iifname "lan0" oifname "lan0" accept/m);
    assert.match(stdout, /^ip link add name lan0 mtu 1500 address 52:54:00:00:00:09 type bridge stp_state 0/m);
    assert.match(stdout, /^ip link set dev card0 up master lan0$/m);
    assert.doesNotMatch(stdout, /iptables/);
    assert.deepEqual(networkState(), before);
    ip("link", "delete", "card0");
  });
});

test("--dry-run shows the unit where systemd is not the init, as comments that a shell skips", () => {
  inScratch((_folder, workDir) => {
    const unit = join(workDir, "volantd.service");
    const args = ["--dry-run", "--work-dir", workDir, "--service-file", unit];
    const { status, stdout } = volar(args);
    assert.equal(status, 0);
    assert.match(stdout, new RegExp(`^# not written here, ${unit}:\n#   # Written by volar setup`, "m"));
    assert.match(stdout, /^# {3}KillMode=process$/m);
    const shown = stdout.slice(stdout.indexOf("# not written here"));
    assert.ok(
      shown.split("\n").every((line) => line === "" || line.startsWith("#")),
      shown,
    );
    const { unwritten } = JSON.parse(volar([...args, "--output", "json"]).stdout) as {
      unwritten: { path: string; content: string }[];
    };
    assert.equal(unwritten[0]?.path, unit);
    assert.match(unwritten[0]?.content ?? "", /^Delegate=yes$/m);
  });
});

test("the commands that --dry-run prints do what set-up does, pasted into a root shell", () => {
  inScratch((folder, workDir) => {
    const args = ["--work-dir", workDir, "--service-file", ""];
    const before = networkState();
    const { stdout } = volar([...args, "--dry-run"]);
    const pasted = spawnSync("/bin/sh", ["-e"], { input: stdout, encoding: "utf8" });
    assert.equal(pasted.status, 0, pasted.stderr);
    const byHand = networkState();
    const script = JSON.parse(volar([...args, "--dry-run", "--output", "json"]).stdout) as {
      actions: { needed: boolean }[];
    };
    assert.ok(
      script.actions.every(({ needed }) => !needed),
      JSON.stringify(script.actions),
    );
    ip("link", "delete", "vbr0");
    spawnSync("nft", ["flush", "ruleset"]);
    writeFileSync("/proc/sys/net/ipv4/ip_forward", "0");
    assert.deepEqual(networkState(), before);
    volar(args);
    // The second bridge has another index.
    const comparable = (state: Record<string, string>): Record<string, string> => {
      return Object.fromEntries(
        Object.entries(state).map(([name, text]) => [name, text.replace(/^\d+: vbr0/gm, "vbr0")]),
      );
    };
    assert.deepEqual(comparable(networkState()), comparable(byHand));
    assert.equal(volar(["--undo", "--work-dir", workDir]).status, 0);
    assert.deepEqual(readdirSync(folder), []);
  });
});

test("bad settings are one sentence and exit code 2; refusals are one sentence and 1; neither leaves anything", () => {
  inScratch((folder, workDir) => {
    const before = networkState();
    const fails = (code: number, pattern: RegExp, args: readonly string[], env: Record<string, string> = {}): void => {
      const { status, stdout, stderr } = volar(["--work-dir", workDir, "--service-file", "", ...args], env);
      assert.deepEqual([status, stdout], [code, ""], stderr);
      assert.match(stderr, pattern);
    };
    fails(2, /^volar: the host address 10\.0\.0\.1 is not in the subnet 192\.168\.127\.0\/24/, [
      "--host-ip",
      "10.0.0.1",
    ]);
    fails(2, /^volar: the bridge name "abcdefghijklmnop" is 16 bytes long/, ["--bridge", "abcdefghijklmnop"]);
    fails(2, /^volar: the subnet "nonsense" is not of the form/, [], { VOLANT_SUBNET: "nonsense" });
    fails(2, /^volar: the firewall "pf" does not exist: use iptables or nftables/, ["--firewall", "pf"]);
    fails(2, /^volar: the firewall "pf" does not exist/, [], { VOLANT_FIREWALL: "pf" });
    fails(2, /^volar: --lan-name names the bridge that --lan makes/, ["--lan-name", "lbr1"]);
    fails(2, /^volar: vbr0 is the managed bridge/, ["--lan-bridge", "vbr0"]);
    fails(1, /^volar: there is no network card card9/, ["--lan", "card9"]);
    fails(1, /^volar: there is no bridge br-none/, ["--lan-bridge", "br-none"]);
    fails(2, /unknown option '--nonsense'/, ["--nonsense"]);
    ip("link", "add", "ve0", "type", "veth", "peer", "name", "ve1");
    fails(1, /^volar: there is a link called ve0, and it is not a bridge/, ["--bridge", "ve0"]);
    ip("link", "delete", "ve0");
    assert.deepEqual(networkState(), before);
    assert.deepEqual(readdirSync(folder), []);
  });
});

test("nobody may not set up, and is told so; nothing is left behind", () => {
  inScratch((folder, workDir) => {
    chmodSync(folder, 0o755);
    const { status, stderr } = volarAsNobody(["--work-dir", workDir]);
    assert.equal(status, 1);
    assert.match(stderr, /^volar: only root can change the host's network\n/);
    assert.deepEqual(readdirSync(folder), []);
  });
});

test("a damaged record is told of, never guessed at", () => {
  inScratch((_folder, workDir) => {
    mkdirSync(workDir);
    for (const [text, pattern] of [
      ["{", /is not JSON/],
      ['{"version":2}', /has version 2, and this Volant knows 1/],
      ['{"version":1}', /the record of the host's set-up/],
    ] as const) {
      writeFileSync(join(workDir, "setup.json"), text);
      for (const args of [[], ["--undo"]]) {
        const { status, stderr } = volar([...args, "--work-dir", workDir]);
        assert.equal(status, 1, stderr);
        assert.match(stderr, pattern);
      }
      assert.equal(readFileSync(join(workDir, "setup.json"), "utf8"), text);
    }
  });
});
