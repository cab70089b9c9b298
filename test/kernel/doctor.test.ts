/**
 * The doctor against a real kernel: each thing is broken in this namespace, found by `volar doctor`, and put right by the command that the doctor
 * prints.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Finding } from "@volant/host";
import { Netlink } from "@volant/netlink";
import { enterOwnNamespace, ip } from "../namespace.ts";
import { within } from "../patience.ts";
import { testedPrograms } from "../vm/house.ts";
import { networkState, run } from "./setup-state.ts";

enterOwnNamespace(import.meta.url);

const folder = mkdtempSync(join(tmpdir(), "doctor-"));
const workDir = join(folder, "work");
const runtimeDir = join(folder, "run");
/** Nobody answers there: the tests of volantd's part have a volantd. */
const env = {
  ...process.env,
  PATH: `${testedPrograms}:${process.env["PATH"] ?? ""}`,
  VOLANT_API_BASE: "http://127.0.0.1:9",
  VOLANT_WORK_DIR: workDir,
  VOLANT_RUNTIME_DIR: runtimeDir,
};
/** What this machine lacks is not this namespace's doing. */
const OF_THE_MACHINE = new Set(["kvm", "clock", "hypervisor", "tun"]);

interface Report {
  readonly status: number | null;
  readonly findings: readonly Finding[];
}

function doctor(): Report {
  const { status, stdout, stderr } = spawnSync(join(testedPrograms, "volar"), ["doctor", "--json"], {
    encoding: "utf8",
    env,
  });
  assert.equal(stderr, "");
  return { status, findings: JSON.parse(stdout) as Finding[] };
}

/** What is wrong, but for what this machine lacks. */
function wrong({ findings }: Report): Finding[] {
  return findings.filter(
    ({ check, level }) => !OF_THE_MACHINE.has(check) && (level === "warning" || level === "broken"),
  );
}

/** Breaks something, has it found by the named check, applies the fix, and finds nothing wrong any more. */
function breaks(check: Finding["check"], level: Finding["level"], damage: () => void, sentence: RegExp): void {
  damage();
  const report = doctor();
  const found = report.findings.find((finding) => finding.check === check && finding.level === level);
  assert.ok(found !== undefined, JSON.stringify(wrong(report)));
  assert.match(found.sentence, sentence);
  if (level === "broken") assert.equal(report.status, 2);
  else assert.ok(report.status === 1 || report.status === 2);
  assert.ok(found.fix !== undefined);
  const fixed = spawnSync("/bin/sh", ["-ec", found.fix], { encoding: "utf8", env });
  assert.equal(fixed.status, 0, `${found.fix}: ${fixed.stderr}`);
}

function assertHealthy(): void {
  assert.deepEqual(wrong(doctor()), []);
}

before(() => {
  mkdirSync(join(workDir, "kernel"), { recursive: true });
  mkdirSync(runtimeDir);
  writeFileSync(join(workDir, "kernel/bzImage"), "a kernel");
  run(join(testedPrograms, "volar"), "setup", "--work-dir", workDir, "--runtime-dir", runtimeDir, "--service-file", "");
});

after(() => {
  run(join(testedPrograms, "volar"), "setup", "--undo", "--work-dir", workDir);
  rmSync(folder, { recursive: true, force: true });
});

test("a host that was just set up has nothing wrong, and looking at it changes nothing", () => {
  const before = networkState();
  const { status, findings } = doctor();
  assert.deepEqual(wrong({ status, findings }), []);
  const worst = findings.some(({ level }) => level === "broken")
    ? 2
    : findings.some(({ level }) => level === "warning")
      ? 1
      : 0;
  assert.equal(status, worst);
  assert.deepEqual(networkState(), before);
});

test("a namespace in which nothing was looked at before stays as it was", () => {
  const inside = `nft list ruleset; ${join(testedPrograms, "volar")} doctor --work-dir ${join(folder, "none")} > /dev/null; nft list ruleset`;
  const { stdout, status } = spawnSync("unshare", ["-n", "sh", "-c", inside], { encoding: "utf8", env });
  assert.deepEqual([stdout, status], ["", 0]);
});

test("nobody without rights gets an answer too, with what only root can see left out", () => {
  const argv = ["--reuid=65534", "--regid=65534", "--clear-groups", process.execPath];
  const main = join(import.meta.dirname, "../../packages/volar/src/main.ts");
  const { stdout, stderr } = spawnSync("/usr/bin/setpriv", [...argv, main, "doctor", "--json"], {
    encoding: "utf8",
    env: { PATH: "", VOLANT_WORK_DIR: workDir, VOLANT_RUNTIME_DIR: runtimeDir },
  });
  assert.equal(stderr, "");
  const findings = JSON.parse(stdout) as Finding[];
  assert.equal(findings.find(({ check }) => check === "masquerade")?.level, "skipped");
  assert.equal(findings.find(({ check }) => check === "bridge")?.level, "ok");
  assert.deepEqual(wrong({ status: 0, findings }), []);
});

test("a bridge that is down, without its address, with another MAC, or gone", () => {
  breaks("bridge", "broken", () => void ip("link", "set", "vbr0", "down"), /is down/);
  const address = ["192.168.127.1/24", "dev", "vbr0"];
  breaks("bridge_address", "broken", () => void ip("address", "delete", ...address), /has no IPv4 address/);
  breaks(
    "bridge_mac",
    "broken",
    () => void ip("link", "set", "vbr0", "address", "02:00:00:00:00:01"),
    /instead of 06:/,
  );
  assertHealthy();
  breaks("bridge", "broken", () => void ip("link", "delete", "vbr0"), /is missing/);
  assertHealthy();
});

test("forwarding that was turned off, and rules that were removed", () => {
  breaks("forwarding", "broken", () => writeFileSync("/proc/sys/net/ipv4/ip_forward", "0"), /forwarding is off/);
  breaks("masquerade", "broken", () => void run("iptables", "-t", "nat", "-F", "POSTROUTING"), /is missing/);
  breaks("forward_policy", "warning", () => void run("iptables", "-F", "FORWARD"), /from and to vbr0 is missing/);
  assertHealthy();
});

test("a FORWARD chain like Docker's, with and without our rules, and a drop that was put before them", () => {
  run("iptables", "-P", "FORWARD", "DROP");
  assertHealthy();
  breaks("forward_policy", "broken", () => void run("iptables", "-F", "FORWARD"), /drops all else/);
  assertHealthy();
  run("iptables", "-F", "FORWARD");
  const guests = doctor().findings.find(({ check }) => check === "br_netfilter");
  assert.equal(guests?.level, "broken", "frames between guests pass the IPv4 firewall in a new namespace");
  run(join(testedPrograms, "volar"), "setup", "--work-dir", workDir, "--runtime-dir", runtimeDir, "--service-file", "");
  breaks(
    "forward_policy",
    "broken",
    () => void run("iptables", "-I", "FORWARD", "1", "-j", "DROP"),
    /before the rules/,
  );
  run("iptables", "-D", "FORWARD", "-j", "DROP");
  for (const drop of [
    ["-i", "vbr0", "-m", "comment", "--comment", "no guests", "-j", "REJECT"],
    ["-j", "DOCKER-USER"],
  ]) {
    breaks(
      "forward_policy",
      "broken",
      () => {
        if (drop.includes("DOCKER-USER")) {
          run("iptables", "-N", "DOCKER-USER");
          run("iptables", "-A", "DOCKER-USER", "-s", "192.168.0.0/16", "-j", "DROP");
        }
        run("iptables", "-I", "FORWARD", "1", ...drop);
      },
      /before the rules .*: -A (?:FORWARD -i vbr0 .* -j REJECT|DOCKER-USER -s 192\.168\.0\.0\/16 -j DROP)/,
    );
    run("iptables", "-D", "FORWARD", ...drop);
  }
  run("iptables", "-F", "DOCKER-USER");
  run("iptables", "-X", "DOCKER-USER");
  run("iptables", "-P", "FORWARD", "ACCEPT");
  assertHealthy();
});

test("a table of somebody else's that drops, one that was told of the bridge, and firewall managers' tables and chains", () => {
  const table = "add table inet other; add chain inet other f { type filter hook forward priority 10; policy drop; }";
  breaks("forward_drop", "broken", () => void run("nft", table), /chain f of table inet other drops/);
  assertHealthy();
  run("nft", "delete table inet other");
  run("nft", "add table inet firewalld");
  run("iptables", "-N", "ufw-user-forward");
  const active = wrong(doctor()).map(({ check, sentence }) => [check, sentence.split(" ")[0]]);
  assert.deepEqual(active, [
    ["firewall_frontend", "firewalld"],
    ["firewall_frontend", "ufw"],
  ]);
  run("nft", "delete table inet firewalld");
  run("iptables", "-X", "ufw-user-forward");
  assertHealthy();
});

test("a way out with a smaller MTU, an overlapping route, and strict reverse path filters", () => {
  ip("link", "add", "out", "type", "veth", "peer", "name", "far");
  ip("address", "add", "10.77.0.2/24", "dev", "out");
  ip("link", "set", "far", "up");
  ip("link", "set", "out", "up");
  ip("route", "add", "default", "via", "10.77.0.1");
  breaks("mtu", "warning", () => void ip("link", "set", "out", "mtu", "1420"), /takes packets of 1420 bytes/);
  assertHealthy();
  writeFileSync("/proc/sys/net/ipv4/conf/vbr0/rp_filter", "1");
  breaks("rp_filter", "broken", () => void ip("route", "add", "192.168.127.64/26", "dev", "out"), /leads elsewhere/);
  const overlap = wrong(doctor());
  assert.deepEqual(
    overlap.map(({ check, level }) => [check, level]),
    [["route_overlap", "broken"]],
  );
  assert.match(overlap[0]?.sentence ?? "", /192\.168\.127\.64\/26 by out takes addresses/);
  ip("link", "delete", "out");
  for (const name of ["all", "vbr0"]) writeFileSync(`/proc/sys/net/ipv4/conf/${name}/rp_filter`, "0");
  ip("link", "set", "vbr0", "mtu", "1500");
  assertHealthy();
});

test("a tap, a folder and a hypervisor without each other, and a kernel that is gone", async () => {
  await using netlink = await Netlink.open();
  await netlink.taps.create({ name: "vttap-x", attach: { master: "vbr0", alias: "volant:abcdef01:7", up: true } });
  await netlink.taps.create({ name: "foreign", attach: { master: "vbr0", alias: "somebody's", up: true } });
  breaks("stale_taps", "warning", () => undefined, /tap vttap-x of VM 7/);
  ip("link", "delete", "foreign");
  breaks("stale_folders", "warning", () => mkdirSync(join(runtimeDir, "7")), /run\/7 of VM 7 has no hypervisor/);
  mkdirSync(join(runtimeDir, "8"));
  // A process as a hypervisor looks from outside: its name, its mark, where its last words go.
  const program = join(folder, "qemu-system-x86_64");
  spawnSync("cp", ["/bin/busybox", program]);
  const log = openSync(join(runtimeDir, "8", "hypervisor.log"), "a");
  const child = spawn(program, ["-c", "read line", "volant:abcdef01:8:1"], {
    argv0: "sh",
    stdio: ["pipe", "ignore", log],
  });
  await once(child, "spawn");
  closeSync(log);
  assertHealthy();
  const ended = once(child, "exit");
  breaks(
    "stale_processes",
    "warning",
    () => rmSync(join(runtimeDir, "8"), { recursive: true }),
    /its VM's folder is gone/,
  );
  await within(ended, "the end of a stale process");
  assertHealthy();
  rmSync(join(workDir, "kernel/bzImage"));
  const kernel = wrong(doctor());
  assert.deepEqual(
    kernel.map(({ check, level, fix }) => [check, level, fix]),
    [["kernel", "broken", `volar kernel install --work-dir ${workDir}`]],
  );
  writeFileSync(join(workDir, "kernel/bzImage"), "a kernel");
});

test("a record that is damaged, and a set-up that ended in the middle", () => {
  const path = join(workDir, "setup.json");
  const text = run("cat", path);
  writeFileSync(path, "{");
  assert.match(wrong(doctor())[0]?.sentence ?? "", /is not JSON/);
  breaks("setup", "broken", () => writeFileSync(path, text.replace('"applied"', '"applying"')), /ended in the middle/);
  assertHealthy();
});

test("the same host set up with nftables: rules of its own table, and Docker's DROP, which no table of ours can overrule", () => {
  const setup = (...args: string[]) => run(join(testedPrograms, "volar"), "setup", "--work-dir", workDir, ...args);
  setup("--undo");
  setup("--runtime-dir", runtimeDir, "--service-file", "", "--firewall", "nftables");
  assertHealthy();
  const table = ["ip", "volant-vbr0"];
  breaks("masquerade", "broken", () => void run("nft", "delete", "table", ...table), /is missing/);
  assertHealthy();
  breaks("forward_policy", "warning", () => void run("nft", "flush", "chain", ...table, "forward"), /from and to vbr0/);
  assertHealthy();
  breaks(
    "forward_drop",
    "broken",
    () => void run("iptables", "-P", "FORWARD", "DROP"),
    /chain FORWARD of table ip filter/,
  );
  assertHealthy();
  run("iptables", "-P", "FORWARD", "ACCEPT");
  run("iptables", "-F", "FORWARD");
});

test("a LAN bridge that was deleted, set down, or lost its card", () => {
  ip("link", "add", "card0", "type", "veth", "peer", "name", "far");
  ip("link", "set", "far", "up");
  run(join(testedPrograms, "volar"), "setup", "--work-dir", workDir, "--service-file", "", "--lan", "card0");
  assertHealthy();
  breaks(
    "lan_bridges",
    "broken",
    () => void ip("link", "set", "card0", "nomaster"),
    /card0 is not on the LAN bridge lbr0/,
  );
  assertHealthy();
  breaks("lan_bridges", "broken", () => void ip("link", "set", "lbr0", "down"), /is down/);
  breaks("lan_bridges", "broken", () => void ip("link", "delete", "lbr0"), /lbr0 is missing/);
  assertHealthy();
});
