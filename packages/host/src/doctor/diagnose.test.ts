import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { furtherAlias, furtherNames } from "../setup/further.ts";
import { doctorView, healthyFirewall, healthyNetwork, seenLink, vbr0 } from "../testing/doctor-view.ts";
import { diagnose, worstLevel } from "./diagnose.ts";
import { CHECKS, type CheckName, type Finding } from "./finding.ts";
import type { DoctorView, SeenFirewall, SeenHypervisor, SeenLink, SeenMachine, SeenNetwork } from "./view.ts";

function findings(check: CheckName, change: Partial<DoctorView>): Finding[] {
  return diagnose(doctorView(change)).filter((finding) => finding.check === check);
}

/** The one finding of a check, as `level: sentence`. */
function says(check: CheckName, change: Partial<DoctorView>, pattern: RegExp, fix?: RegExp): void {
  const found = findings(check, change);
  assert.equal(found.length, 1, JSON.stringify(found));
  assert.match(`${found[0]?.level}: ${found[0]?.sentence}`, pattern);
  if (fix !== undefined) assert.match(found[0]?.fix ?? "", fix);
}

const network = (change: Partial<SeenNetwork>) => ({ network: { ...healthyNetwork, ...change } });
const firewall = (change: Partial<SeenFirewall>) => ({ firewall: { ...healthyFirewall, ...change } });
const machine = (change: Partial<SeenMachine>) => ({ machine: { ...doctorView().machine, ...change } });

test("a healthy host gets one ok from every check, in the order of the catalogue", () => {
  const all = diagnose(doctorView());
  assert.deepEqual(
    all.map(({ check, level }) => [check, level]),
    Object.keys(CHECKS).map((check) => [check, "ok"]),
  );
  assert.equal(worstLevel(all), "ok");
});

test("a host that can't be looked at is no broken host: every check gives a verdict, and none is made up", () => {
  const all = diagnose(
    doctorView({
      root: false,
      network: undefined,
      firewall: { unseen: "only root can see the firewall's rules" },
      processes: undefined,
      folders: undefined,
      sysctls: {},
      volantd: { answers: false, reason: "volantd does not answer" },
      machine: { ...doctorView().machine, kvmNode: "denied", tunNode: "denied" },
    }),
  );
  assert.deepEqual(new Set(all.map(({ check }) => check)), new Set(Object.keys(CHECKS)));
  assert.equal(worstLevel(all), "ok");
  assert.ok(all.filter(({ level }) => level === "skipped").length > 12);
});

test("the guide names every check, and no other", () => {
  const guide = readFileSync(new URL("../../../../docs/doctor.md", import.meta.url), "utf8");
  const named = [...guide.matchAll(/^### `([a-z_]+)`$/gm)].map((match) => match[1]);
  assert.deepEqual(named, Object.keys(CHECKS));
});

test("how data reaches guests is told, with what is wrong where vsock is asked for and not in use", () => {
  const { volantd } = doctorView();
  assert.ok(volantd.answers);
  const of = (change: Partial<typeof volantd>) => ({ volantd: { ...volantd, ...change } });
  says("transport", {}, /^ok: data reaches guests over virtio-serial/);
  says("transport", of({ transport: { data: "vsock", wanted: "auto" } }), /^ok: .* over vsock$/);
  const missing = { data: "virtio-serial", wanted: "auto", reason: "there is no vhost-device-vsock" } as const;
  says("transport", of({ transport: missing }), /^warning: .* there is no vhost-device-vsock/, /^cargo install /);
  const withoutVsock = [{ name: "web", reason: "its vhost-device-vsock has ended" }];
  says(
    "transport",
    of({ transport: { data: "vsock", wanted: "on" }, withoutVsock }),
    /^warning: data of VM web .* has ended$/,
    /^volar vms restart web$/,
  );
  says("transport", { volantd: { answers: false, reason: "it is off" } }, /^skipped: .*it is off$/);
});

test("the worst finding counts, and what was skipped counts for nothing", () => {
  const of = (...levels: Finding["level"][]) =>
    worstLevel(levels.map((level) => ({ check: "bridge", level, sentence: "" })));
  assert.equal(of("ok", "skipped"), "ok");
  assert.equal(of("ok", "warning", "skipped"), "warning");
  assert.equal(of("warning", "broken", "ok"), "broken");
});

test("a set-up that is absent, damaged, half done, half undone, or another than volantd's is told of", () => {
  const record = doctorView().record;
  assert.ok(record !== undefined && !("unreadable" in record));
  says("setup", { record: undefined }, /^warning: no set-up is recorded/, /^volar setup --bridge vbr0 --subnet/);
  says("setup", { record: { unreadable: "it is not JSON", denied: false } }, /^broken: it is not JSON/);
  says("setup", { record: { unreadable: "permission denied", denied: true } }, /^skipped: permission denied/);
  says("setup", { record: { ...record, state: "applying" } }, /^broken: a set-up .* ended in the middle/);
  says("setup", { record: { ...record, state: "undoing" } }, /^broken: an undo/, /^volar setup --undo --work-dir/);
  const volantd = {
    answers: true,
    installation: "1",
    bridge: "vbr9",
    subnet: "10.0.0.0/24",
    vmIds: [],
    leased: [],
  } as const;
  says("setup", { volantd }, /^broken: .* vbr0 .* volantd is set to vbr9 and 10\.0\.0\.0\/24/, /^VOLANT_BRIDGE=vbr0 /);
});

test("a bridge that is missing, no bridge, down, without its address or with another MAC is told of", () => {
  const eth0 = seenLink();
  says("bridge", network({ links: [eth0] }), /^broken: the bridge vbr0 is missing/, /^volar setup/);
  says("bridge_mac", network({ links: [eth0] }), /^skipped: there is no bridge vbr0/);
  says("bridge", network({ links: [{ ...vbr0, kind: "veth" }] }), /^broken: the link vbr0 is not a bridge/);
  says("bridge", network({ links: [{ ...vbr0, up: false }] }), /^broken: .* is down/, /^ip link set dev vbr0 up$/);
  const fix = /^ip address add 192\.168\.127\.1\/24 dev vbr0$/;
  says("bridge_address", network({ addresses: [] }), /^broken: .* has no IPv4 address, and needs 192/, fix);
  const other = [{ link: "vbr0", address: "192.168.127.1", prefixLength: 16 }];
  says("bridge_address", network({ addresses: other }), /^broken: .* has 192\.168\.127\.1\/16, and needs/, fix);
  const links = [{ ...vbr0, mac: "02:00:00:00:00:01" }];
  says(
    "bridge_mac",
    network({ links }),
    /^broken: .* 02:00:00:00:00:01 instead of 06:/,
    /^ip link set dev vbr0 address 06:/,
  );
  says("bridge_mac", { ...network({ links }), record: undefined }, /^warning: /);
});

test("an adopted bridge keeps the MAC that it was adopted with", () => {
  const record = doctorView().record;
  assert.ok(record !== undefined && !("unreadable" in record));
  const mac = "02:00:00:00:00:01";
  const adopted = { ...record, effects: [{ kind: "adopted_bridge" as const, link: "vbr0", mac }] };
  says("bridge_mac", { ...network({ links: [{ ...vbr0, mac }] }), record: adopted }, /^ok: /);
  says("bridge_mac", { record: adopted }, /^broken: .* instead of 02:/);
});

test("a full bridge is well while further ones are joined to it, and is not when there is no port left to join one by", () => {
  const taps = (count: number) => Array.from({ length: count }, (_, i) => seenLink({ name: `t${i}`, master: 9 }));
  const ports = (count: number) => network({ links: [vbr0, ...taps(count)] });
  says("bridge_ports", ports(960), /^ok: .* 960 of the 1023 ports that Linux allows$/);
  says("bridge_ports", ports(1023), /^broken: .* none is left for one more further bridge/);

  const further = (number: number, change: Partial<SeenLink> = {}): SeenLink[] => {
    const mark = { installation: "abcdef01", bridge: "vbr0", number };
    const names = furtherNames("vbr0", number);
    const index = 100 * number;
    const end = { kind: "veth", alias: furtherAlias(mark, "near") };
    return [
      seenLink({ name: names.bridge, index, kind: "bridge", alias: furtherAlias(mark, "bridge") }),
      seenLink({ ...end, name: names.near, index: index + 1, master: 9, ...change }),
      seenLink({ ...end, name: names.far, index: index + 2, master: index }),
      seenLink({ name: `far${number}`, index: index + 3, master: index }),
    ];
  };
  const spread = (...links: readonly SeenLink[]) => network({ links: [vbr0, ...taps(960), ...links] });
  says("bridge_ports", spread(...further(1), ...further(2)), /^ok: .* 962 .* further bridges: vbr0-1 2, vbr0-2 2$/);
  const cut = /^broken: the further bridge vbr0-1 is not joined to vbr0/;
  says("bridge_ports", spread(...further(1, { up: false }), ...further(2)), cut, /volantd$/);
  says("bridge_ports", spread(...further(1, { master: undefined })), cut);
  const all = Array.from({ length: 63 }, (_, index) => further(index + 1)).flat();
  says("bridge_ports", spread(...all), /^warning: .* 1023 .* there can be no more of them$/);
});

test("forwarding that is off and a masquerade that is missing cut guests off", () => {
  says("forwarding", { sysctls: { "net/ipv4/ip_forward": "0" } }, /^broken: /, /^sysctl -w net\/ipv4\/ip_forward=1$/);
  says("masquerade", firewall({ masquerade: false }), /^broken: /, /^iptables -w -t nat -I POSTROUTING 1 -s 192/);
});

test("a FORWARD chain that drops is broken without our rules, or with a drop before them; without a drop it is a warning", () => {
  const fixes = (from: string) => new RegExp(`^iptables -w -t filter -I FORWARD 1 ${from} vbr0 [^&]*$`);
  says("forward_policy", firewall({ acceptFrom: false, forwardPolicy: "DROP" }), /^broken: .* from vbr0/, fixes("-i"));
  says("forward_policy", firewall({ acceptTo: false }), /^warning: .* forwarded to vbr0 .* Docker/, fixes("-o"));
  says("forward_policy", firewall({ forwardPolicy: "DROP" }), /^ok: /);
  says(
    "forward_policy",
    firewall({ droppedBy: "-A FORWARD -i vbr0 -j DROP" }),
    /^broken: .* before the rules .*: -A FORWARD -i vbr0 -j DROP$/,
    /-D FORWARD -i vbr0 .* -I FORWARD 1 -i vbr0/,
  );
});

test("firewall managers, and other tables' drops, are told of with what would let guests through", () => {
  says("firewall_frontend", firewall({ frontends: ["firewalld"] }), /^warning: firewalld is active/, /^firewall-cmd/);
  assert.equal(findings("firewall_frontend", firewall({ frontends: ["firewalld", "ufw"] })).length, 2);
  const chain = { family: "inet", table: "x", name: "fwd", policy: "drop", rules: [] } as const;
  const fix = /^nft insert rule inet x fwd iifname vbr0 accept && nft insert rule inet x fwd oifname vbr0 accept$/;
  says("forward_drop", firewall({ otherChains: [chain] }), /^broken: the chain fwd of table inet x/, fix);
  const jump = { always: true, namesBridge: false, verdict: "jump" } as const;
  says("forward_drop", firewall({ otherChains: [{ ...chain, rules: [jump] }] }), /^warning: /, fix);
  says("forward_drop", firewall({ otherChains: undefined }), /^skipped: there is no nft/);
});

test("br_netfilter is broken only where the IPv4 firewall drops what it makes it see", () => {
  const drop = firewall({ acceptFrom: false, forwardPolicy: "DROP" });
  says("br_netfilter", drop, /^broken: .* drops them$/, /^sysctl -w net\/bridge\/bridge-nf-call-iptables=0$/);
  says("br_netfilter", { ...drop, sysctls: { "net/bridge/bridge-nf-call-iptables": "0" } }, /^ok: /);
});

test("a strict reverse path filter is told of where a route makes it drop", () => {
  const strict = { "net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/vbr0/rp_filter": "0" };
  says("rp_filter", { sysctls: strict }, /^ok: /);
  const vpn = [...healthyNetwork.routes, { destination: "192.168.127.64/26", link: "tun0", leads: true }];
  says(
    "rp_filter",
    { ...network({ routes: vpn }), sysctls: strict },
    /^broken: .* 192\.168\.127\.64\/26 leads elsewhere/,
  );
  says(
    "rp_filter",
    { ...network({ routes: vpn }), sysctls: { ...strict, "net/ipv4/conf/vbr0/rp_filter": "2" } },
    /^ok: /,
  );
  const two = [...healthyNetwork.routes, { destination: "0.0.0.0/0", link: "eth1", leads: true }];
  const sysctls = { "net/ipv4/conf/eth1/rp_filter": "1" };
  says(
    "rp_filter",
    { ...network({ routes: two }), sysctls },
    /^warning: .* eth1 is strict/,
    /conf\/eth1\/rp_filter=2$/,
  );
});

test("overlapping routes and addresses: a longer or equal prefix takes addresses away, a shorter one is hidden; told once", () => {
  const via = (destination: string) => network({ routes: [{ destination, link: "tun0", leads: true }] });
  says("route_overlap", via("192.168.127.128/25"), /^broken: the route to 192\.168\.127\.128\/25 by tun0 takes/);
  says("route_overlap", via("192.168.0.0/16"), /^warning: .* hides a part of what the route to 192\.168\.0\.0\/16/);
  says("route_overlap", via("128.0.0.0/1"), /^ok: /);
  const both = {
    addresses: [{ link: "eth1", address: "192.168.127.7", prefixLength: 24 }],
    routes: [{ destination: "192.168.127.0/24", link: "eth1", leads: true }],
  };
  says("route_overlap", network(both), /^broken: the address 192\.168\.127\.7\/24 of eth1/);
});

test("a link out that takes smaller packets than the bridge sends is told of", () => {
  const links = [seenLink({ mtu: 1420 }), vbr0];
  says(
    "mtu",
    network({ links }),
    /^warning: eth0, .* 1420 bytes, and vbr0 sends 1500/,
    /^ip link set dev vbr0 mtu 1420$/,
  );
  says("mtu", network({ routes: [] }), /^skipped: no default route/);
});

test("network managers, and what the machine lacks, are told of with a command", () => {
  const seizers = [{ manager: "systemd-networkd", path: "/etc/systemd/network/all.network" }] as const;
  says("tap_seizure", { seizers }, /^warning: systemd-networkd runs, and \/etc/, /00-volant\.network/);
  says("tun", machine({ tunNode: "missing" }), /^broken: /, /^modprobe tun$/);
  says("kvm", machine({ virtualization: false }), /^warning: .* software emulation/);
  says("kvm", machine({ kvmNode: "missing" }), /^warning: /, /modprobe kvm/);
  says("hypervisor", machine({ hypervisor: undefined }), /^broken: /, /^apt-get install qemu-system-x86$/);
  says("kernel", machine({ kernel: "missing" }), /^broken: /, /^volar kernel install --work-dir \/var\/lib\/volant$/);
});

test("a subnet is nearly full at nine tenths and full when nothing is left; others' addresses don't count", () => {
  const pool = (count: number) => {
    const leased = Array.from({ length: count }, (_, index) => `192.168.127.${index + 2}`);
    const volantd = doctorView().volantd;
    return { volantd: { ...volantd, answers: true, leased: [...leased, "10.0.0.9"] } } as Partial<DoctorView>;
  };
  says("subnet_pool", pool(200), /^ok: 200 of the 253/);
  says("subnet_pool", pool(230), /^warning: 230 of the 253/);
  says("subnet_pool", pool(253), /^broken: .* no further VM/);
});

test("guests that nothing holds to their addresses are told of, and entries of guests that are gone", () => {
  const taps = network({ links: [vbr0, seenLink({ name: "vttap-a", kind: "tun", alias: "volant:abcdef01:7" })] });
  const table = (rules: "absent" | "changed" | "intact", empty = false) => ({
    policy: { nft: true, table: { rules, empty }, slow: undefined },
  });
  says(
    "guest_policy",
    { policy: { nft: false, table: undefined, slow: undefined } },
    /^broken: there is no nft/,
    /^apt-get install/,
  );
  says(
    "guest_policy",
    { policy: { nft: true, table: undefined, slow: undefined }, root: false },
    /^skipped: only root/,
  );
  says("guest_policy", { ...taps, ...table("intact") }, /^ok: guests are held to their addresses$/);
  const slow = { policy: { ...table("intact").policy, slow: "all by the link: why" } };
  says("guest_policy", { ...taps, ...slow }, /^ok: guests are held to their addresses; all by the link: why$/);
  says("guest_policy", { ...taps, ...table("absent", true) }, /^broken: .* are missing/, /^systemctl restart volantd$/);
  says("guest_policy", { ...taps, ...table("changed") }, /^broken: .* were changed/);
  says("guest_policy", table("intact"), /^warning: .* no tap is left/, /^nft delete table bridge volant$/);
});

test("taps, hypervisors and folders without each other are stale, but not where a volantd sees to them", () => {
  const silent = { answers: false, reason: "no answer" } as const;
  const taps = network({ links: [vbr0, seenLink({ name: "vttap-a", kind: "tun", alias: "volant:abcdef01:7" })] });
  says("stale_taps", { ...taps, volantd: silent }, /^warning: the tap vttap-a of VM 7/, /^ip link delete dev vttap-a$/);
  says("stale_taps", taps, /^ok: /);
  const process: SeenHypervisor = {
    pid: 4242,
    installation: "abcdef01",
    vmId: 7,
    folder: "/root/.volant/run/7",
    folderDeleted: false,
  };
  const running = (change: Partial<SeenHypervisor> = {}) => ({
    processes: { hypervisors: [{ ...process, ...change }], managers: [] },
  });
  says("stale_taps", { ...taps, ...running(), volantd: silent }, /^ok: /);
  says("stale_processes", { ...running(), volantd: silent }, /^ok: /);
  says(
    "stale_processes",
    { ...running({ folderDeleted: true }), volantd: silent },
    /^warning: .* 4242 .* folder is gone/,
    /^kill 4242$/,
  );
  says("stale_processes", running(), /^warning: .* volantd knows no such VM/);
  says("stale_processes", running({ installation: "beef" }), /^ok: /);
  says("stale_folders", { folders: [7], volantd: silent }, /^warning: /, /^rm -r \/root\/\.volant\/run\/7$/);
  says("stale_folders", { folders: [7], ...running(), volantd: silent }, /^ok: /);
  says("stale_folders", { folders: [7], root: false }, /^skipped: /);
});

test("a clock that is behind, went backwards, or follows no server is told of", () => {
  const clock = (nowMs: number, synchronized?: boolean) => ({
    clock: { nowMs, newestFileMs: Date.UTC(2026, 4, 1), synchronized },
  });
  says("clock", clock(0), /^broken: the clock says 1970/);
  says("clock", clock(Date.UTC(2026, 3, 1)), /^warning: .* went backwards/);
  says("clock", clock(Date.UTC(2026, 5, 1), false), /^warning: .* no time server/, /^timedatectl set-ntp true$/);
  says("clock", clock(Date.UTC(2026, 5, 1)), /^ok: /);
});

test("a published port that is not listened on is a warning with its VM, its place and the reason", () => {
  const { volantd } = doctorView();
  assert.ok(volantd.answers);
  const deafPorts = [{ vm: "web", endpoint: "127.0.0.1:8080", reason: "it is in use by another program" }];
  const [finding] = diagnose(doctorView({ volantd: { ...volantd, deafPorts } })).filter(
    ({ check }) => check === "published_ports",
  );
  assert.equal(finding?.level, "warning");
  assert.match(finding.sentence, /127\.0\.0\.1:8080 of VM web .*another program/);
});

test("where the network is not Volant's to make, its checks are skipped and say why; the others are not", () => {
  const bare = { record: undefined, network: undefined, managed: false } as const;
  const findings = diagnose(doctorView(bare));
  const skippedChecks = findings.filter(({ sentence }) => sentence.startsWith("VOLANT_NETWORK=noop"));
  assert.deepEqual(new Set(skippedChecks.map(({ level }) => level)), new Set(["skipped"]));
  assert.ok(skippedChecks.some(({ check }) => check === "bridge"));
  assert.ok(!skippedChecks.some(({ check }) => check === "hypervisor"));
  assert.equal(worstLevel(findings), "ok");
  assert.notEqual(worstLevel(diagnose(doctorView({ ...bare, managed: true }))), "ok");
});
