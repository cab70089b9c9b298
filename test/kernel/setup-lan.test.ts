/**
 * `volar setup --lan`: a card that holds this namespace's addresses and default routes becomes a port of a bridge, and gets all of it back. The card is one
 * end of a veth pair; at the other is a router in a namespace of its own, with an echo server and a network behind it.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import test, { after, before } from "node:test";
import { fileURLToPath } from "node:url";
import {
  LinuxHost,
  type Operation,
  previewSetup,
  restoreNetwork,
  runSetup,
  type SetupRequest,
  undoSetup,
} from "@volant/host";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { PATIENCE_MS, eventOf } from "../patience.ts";
import { networkState, run, type Scratch, scratchSetup } from "./setup-state.ts";

enterOwnNamespace(import.meta.url);

const ROUTER = `
  require("node:net")
    .createServer((socket) => socket.pipe(socket).on("error", () => {}))
    .listen(7000, "0.0.0.0", () => console.log("ready"));`;

const change = { lans: [{ bridge: "lbr0", card: "card0" }] } satisfies Partial<SetupRequest>;
const killedProgram = fileURLToPath(new URL("setup-killed.ts", import.meta.url));

let router: ChildProcess & { readonly pid: number };

/** `ip` in the router's namespace. */
function beyond(...args: string[]): void {
  run("nsenter", "--target", String(router.pid), "--net", "ip", ...args);
}

function sysctl(name: string, value: string): void {
  writeFileSync(`/proc/sys/net/${name}`, `${value}\n`);
}

before(async () => {
  // The kernel must not be busy with addresses of its own making while their state is compared.
  for (const conf of ["all", "default"]) {
    sysctl(`ipv6/conf/${conf}/accept_dad`, "0");
    sysctl(`ipv6/conf/${conf}/accept_ra`, "0");
  }
  const child = spawn("unshare", ["--net", process.execPath, "-e", ROUTER], { stdio: ["ignore", "pipe", "inherit"] });
  assert.ok(child.pid !== undefined);
  await eventOf(child.stdout, "data", "the router");
  router = Object.assign(child, { pid: child.pid });
  ip("link", "add", "card0", "type", "veth", "peer", "name", "r0", "netns", String(router.pid));
  beyond("link", "set", "lo", "up");
  beyond("address", "add", "10.77.0.1/24", "dev", "r0");
  beyond("address", "add", "2001:db8:77::1/64", "dev", "r0", "nodad");
  beyond("address", "add", "198.51.100.1/32", "dev", "lo");
  beyond("link", "set", "r0", "up");
  configureCard();
  await untilSettled("card0");
});

after(() => {
  router?.kill("SIGKILL");
});

/** What somebody's boot scripts would do. */
function configureCard(): void {
  ip("link", "set", "card0", "up");
  ip("address", "add", "10.77.0.5/24", "broadcast", "10.77.0.255", "dev", "card0");
  ip("address", "add", "10.77.0.6/24", "dev", "card0", "label", "card0:1");
  ip("address", "add", "172.31.0.1/24", "dev", "card0", "noprefixroute");
  ip("address", "add", "2001:db8:77::5/64", "dev", "card0", "nodad");
  ip("route", "add", "default", "via", "10.77.0.1", "dev", "card0", "proto", "static", "metric", "100");
  ip("route", "add", "198.51.100.0/24", "via", "10.77.0.1", "src", "10.77.0.6", "mtu", "1400");
  ip("route", "add", "172.31.0.0/24", "dev", "card0", "proto", "kernel", "src", "172.31.0.1", "metric", "7");
  ip("route", "add", "203.0.113.0/24", "via", "10.77.0.1", "table", "100");
  ip("-6", "route", "add", "default", "via", "2001:db8:77::1", "dev", "card0", "proto", "static");
}

/** The kernel tells of a carrier, and makes the link-local address, a moment after a link is up. */
async function untilSettled(link: string): Promise<void> {
  const settled = () =>
    ipJson("link", "show", "dev", link)[0]?.["operstate"] === "UP" &&
    ip("address", "show", "dev", link).includes("fe80::");
  const deadline = Date.now() + PATIENCE_MS;
  while (!settled()) {
    assert.ok(Date.now() < deadline, `${link} does not settle: ${ip("address", "show", "dev", link)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A connection to the router's far address, which only the routes by the card lead to. */
class Stream {
  readonly #socket: Socket;
  #received = "";
  #wanted: { text: string; resolve: () => void } | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8").on("data", (text: string) => {
      this.#received += text;
      if (this.#wanted !== undefined && this.#received.endsWith(this.#wanted.text)) this.#wanted.resolve();
    });
  }

  static async open(): Promise<Stream> {
    const socket = connect({ host: "198.51.100.1", port: 7000, localAddress: "10.77.0.5" });
    await eventOf(socket, "connect", "a connection to the router");
    return new Stream(socket);
  }

  /** Sends a text, and waits until it is back. */
  async echo(text: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#wanted = { text, resolve };
    this.#socket.once("error", reject);
    this.#socket.write(text);
    const limit = setTimeout(() => reject(new Error(`nothing came back ${text}`)), 30_000);
    await promise;
    clearTimeout(limit);
    this.#socket.off("error", reject);
  }

  close(): void {
    this.#socket.destroy();
  }
}

function onBridge(): void {
  assert.equal(ipJson("link", "show", "dev", "card0")[0]?.["master"], "lbr0");
  const addresses = (link: string): string[] =>
    ipJson("address", "show", "dev", link).flatMap((entry) =>
      (entry["addr_info"] as { local: string; prefixlen: number; scope: string }[]).flatMap(
        ({ local, prefixlen, scope }) => (scope === "link" ? [] : [`${local}/${prefixlen}`]),
      ),
    );
  assert.deepEqual(addresses("card0"), []);
  assert.deepEqual(addresses("lbr0"), ["10.77.0.5/24", "172.31.0.1/24", "10.77.0.6/24", "2001:db8:77::5/64"]);
  assert.doesNotMatch(run("ip", "route", "show", "table", "all"), /dev card0/);
  assert.doesNotMatch(run("ip", "-6", "route", "show", "table", "all"), /dev card0/);
  assert.match(ip("route", "show", "default"), /^default via 10\.77\.0\.1 dev lbr0 proto static metric 100/);
  assert.match(ip("-6", "route", "show", "default"), /^default via 2001:db8:77::1 dev lbr0 proto static/);
  assert.match(ip("route", "show", "198.51.100.0/24"), /dev lbr0 src 10\.77\.0\.6 mtu 1400/);
  assert.match(ip("route", "show", "table", "100"), /^203\.0\.113\.0\/24 via 10\.77\.0\.1 dev lbr0/);
}

async function leavingNoTrace(
  work: (scratch: Scratch) => Promise<void>,
  wanted: Partial<SetupRequest> = change,
): Promise<void> {
  const before = networkState();
  using scratch = scratchSetup(wanted);
  try {
    await work(scratch);
  } catch (error) {
    // The next test is to find the card as it was.
    await undoSetup(scratch.host).catch(() => undefined);
    throw error;
  }
  assert.deepEqual(networkState(), before);
  assert.deepEqual(readdirSync(scratch.folder), []);
}

test("a connection through the card goes on after every single step of set-up and of undo, and all is as before then", () =>
  leavingNoTrace(async ({ settings }) => {
    const stream = await Stream.open();
    let steps = 0;
    class Watched extends LinuxHost {
      override async execute(operation: Operation): Promise<void> {
        await super.execute(operation);
        steps += 1;
        await stream.echo(`after ${operation.kind} ${steps}\n`);
      }
    }
    const host = new Watched(settings.workDir);
    await runSetup(host, settings);
    onBridge();
    const [bridge] = ipJson("link", "show", "dev", "lbr0");
    assert.ok(bridge !== undefined);
    assert.partialDeepStrictEqual(bridge, { linkinfo: { info_data: { stp_state: 0, forward_delay: 0 } } });
    assert.equal(bridge["address"], ipJson("link", "show", "dev", "card0")[0]?.["address"]);
    assert.ok(steps > 15, String(steps));
    const fresh = await Stream.open();
    await fresh.echo("a new connection\n");
    fresh.close();
    await undoSetup(host);
    await stream.echo("the end\n");
    stream.close();
  }));

test("a second set-up changes nothing, whether it names the card or not; nftables has the bridge's own rule", async () => {
  for (const firewall of ["iptables", "nftables"] as const) {
    await leavingNoTrace(
      async ({ host, settings }) => {
        await runSetup(host, settings);
        const rule =
          firewall === "nftables" ? /iifname "lbr0" oifname "lbr0" accept/ : /iifname "lbr0" oifname "lbr0" .*accept/;
        assert.match(run("nft", "list", "ruleset"), rule);
        await untilSettled("lbr0");
        const whole = networkState();
        for (const lans of [settings.lans, []]) {
          const outcomes: string[] = [];
          await runSetup(host, { ...settings, lans }, { onProgress: ({ outcome }) => outcomes.push(outcome) });
          assert.deepEqual([...new Set(outcomes)], ["unchanged"]);
          assert.deepEqual(networkState(), whole);
        }
        await undoSetup(host);
      },
      { ...change, firewall },
    );
  }
});

function runKilled(mode: "setup" | "undo", { settings }: Scratch, effects: number): boolean {
  const args = [killedProgram, mode, settings.workDir, String(effects), JSON.stringify(change)];
  const { status, signal, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  assert.ok(status === 0 || signal === "SIGKILL", stderr);
  return signal === "SIGKILL";
}

/** Effects of the managed network come first, and are killed elsewhere. */
const FIRST_OF_THE_LAN = 15;

test("set-up killed before any of its effects on the card is undone without a trace, and every third time finished first", async () => {
  let effects = FIRST_OF_THE_LAN;
  for (let killed = true; killed; effects += 1) {
    await leavingNoTrace(async (scratch) => {
      killed = runKilled("setup", scratch, effects);
      if (effects % 3 === 0) {
        await runSetup(scratch.host, scratch.settings);
        onBridge();
      }
      await undoSetup(scratch.host);
    });
  }
  assert.ok(effects > FIRST_OF_THE_LAN + 10, `only ${effects} effects`);
});

test("undo killed before any second one of its effects on the card is finished by the next", async () => {
  // The card comes first.
  for (let effects = 0; effects <= 18; effects += 2) {
    await leavingNoTrace(async (scratch) => {
      await runSetup(scratch.host, scratch.settings);
      assert.ok(runKilled("undo", scratch, effects));
      await undoSetup(scratch.host);
    });
  }
});

test("when a step fails, the card has everything back at once, and an undo has only the rest to take back", async () => {
  for (const kind of ["add_lan_address", "move_card", "delete_lan_address", "set_sysctl"]) {
    await leavingNoTrace(async ({ settings, host }) => {
      const card = [networkState()["addresses"], ip("route", "show", "table", "100"), ip("route", "show", "default")];
      let lan = false;
      class Failing extends LinuxHost {
        #failed = false;
        override async execute(operation: Operation): Promise<void> {
          lan ||= operation.kind === "create_lan_bridge";
          if (lan && operation.kind === kind && !this.#failed) {
            this.#failed = true;
            const { VolantError } = await import("@volant/contract");
            throw new VolantError("not_ready", `no ${kind} today`);
          }
          await super.execute(operation);
        }
      }
      await assert.rejects(runSetup(new Failing(settings.workDir), settings), new RegExp(`no ${kind} today`));
      assert.doesNotMatch(ip("link", "show"), /lbr0/);
      const now = [networkState()["addresses"], ip("route", "show", "table", "100"), ip("route", "show", "default")];
      // The managed bridge stands there with its own address, beside the card as it was.
      assert.deepEqual([now[0]?.startsWith(card[0] ?? "?"), now[1], now[2]], [true, card[1], card[2]]);
      await undoSetup(host);
    });
  }
});

test("a card that lost its bridge, and one that boots with no address or with its old ones, is put back", () =>
  leavingNoTrace(async ({ host, settings }) => {
    await runSetup(host, settings);
    ip("link", "delete", "lbr0");
    assert.ok((await restoreNetwork(host)).restored.length > 0);
    onBridge();
    ip("link", "set", "lbr0", "down");
    ip("link", "set", "card0", "nomaster");
    await restoreNetwork(host);
    onBridge();
    // As after a reboot: the bridge is gone, and boot scripts gave the card what it always gets.
    ip("link", "delete", "lbr0");
    sysctl("ipv6/conf/card0/disable_ipv6", "0");
    configureCard();
    await restoreNetwork(host);
    onBridge();
    assert.deepEqual(await restoreNetwork(host), { recorded: true, restored: [] });
    await undoSetup(host);
  }));

test("a bridge that somebody deleted: undo gives the card back what was on it", () =>
  leavingNoTrace(async ({ host, settings }) => {
    await runSetup(host, settings);
    ip("link", "delete", "lbr0");
    await undoSetup(host);
  }));

test("what someone added to the bridge since goes to the card, and what they took away does not come back", async () => {
  using scratch = scratchSetup(change);
  await runSetup(scratch.host, scratch.settings);
  ip("address", "add", "10.99.0.1/24", "dev", "lbr0");
  ip("address", "delete", "172.31.0.1/24", "dev", "lbr0");
  await undoSetup(scratch.host);
  const addresses = ip("-brief", "-4", "address", "show", "dev", "card0");
  assert.match(addresses, /10\.99\.0\.1\/24/);
  assert.doesNotMatch(addresses, /172\.31/);
  ip("address", "delete", "10.99.0.1/24", "dev", "card0");
  ip("address", "flush", "dev", "card0");
  configureCardAgain();
});

/** Flushing took the routes along. */
function configureCardAgain(): void {
  ip("link", "set", "card0", "down");
  ip("link", "set", "card0", "up");
  configureCard();
}

test("undo refuses while a VM's tap is on the LAN bridge", () =>
  leavingNoTrace(async ({ host, settings }) => {
    await runSetup(host, settings);
    ip("link", "add", "ve0", "type", "veth", "peer", "name", "ve1");
    ip("link", "set", "ve0", "master", "lbr0");
    await assert.rejects(undoSetup(host), /the bridge lbr0 still has the port ve0/);
    onBridge();
    ip("link", "delete", "ve0");
    await undoSetup(host);
  }));

test("a bridge that exists is accepted, recorded and left as it is; one that does not is refused", async () => {
  ip("link", "add", "br-lan", "type", "bridge");
  ip("link", "set", "br-lan", "up");
  try {
    await leavingNoTrace(
      async ({ host, settings }) => {
        // Timers count down by themselves.
        const shown = () => ip("-details", "link", "show", "dev", "br-lan").replace(/ \w+_timer +[0-9.]+/g, "");
        const before = shown();
        await runSetup(host, settings);
        assert.equal(shown(), before);
        assert.deepEqual((await host.readRecord())?.lans, [{ bridge: "br-lan", card: null }]);
        await assert.rejects(
          runSetup(host, { ...settings, lans: [{ bridge: "br-none", card: null }] }),
          /there is no bridge br-none/,
        );
        await undoSetup(host);
      },
      { lans: [{ bridge: "br-lan", card: null }] },
    );
  } finally {
    ip("link", "delete", "br-lan");
  }
});

test("cards that can't be moved safely are refused, with the reason, and nothing changes", async () => {
  const refused = async (card: string, pattern: RegExp, bridge = "lbr0"): Promise<void> => {
    await leavingNoTrace(
      async ({ host, settings }) => {
        const { refusals } = await previewSetup(host, settings);
        assert.match(refusals.map(({ message, hint }) => `${message}: ${hint}`).join("\n"), pattern);
        await assert.rejects(runSetup(host, settings));
      },
      { lans: [{ bridge, card }] },
    );
  };
  await refused("card9", /there is no network card card9/);
  ip("link", "add", "br-lan", "type", "bridge");
  await refused("br-lan", /br-lan is a bridge already: volar setup --lan-bridge br-lan/);
  await refused(
    "card0",
    /called br-lan, and it is a bridge that volar setup did not make.*--lan-bridge br-lan/,
    "br-lan",
  );
  ip("link", "add", "ve0", "type", "veth", "peer", "name", "ve1");
  ip("link", "set", "ve0", "master", "br-lan");
  await refused("ve0", /ve0 is a port of br-lan already: volar setup --lan-bridge br-lan/);
  await refused("card0", /called ve0, and it is not a bridge/, "ve0");
  ip("link", "delete", "ve0");
  ip("link", "delete", "br-lan");
  run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun");
  await refused("tun0", /tun0 is no Ethernet card/);
  ip("link", "delete", "tun0");
  ip("address", "add", "10.55.0.9/24", "dev", "card0", "valid_lft", "3600", "preferred_lft", "3600");
  await refusedNow("card0", /has its address 10\.55\.0\.9 from a DHCP client/);
  ip("address", "delete", "10.55.0.9/24", "dev", "card0");
  ip("route", "add", "192.0.2.0/24", "nexthop", "via", "10.77.0.1", "nexthop", "via", "10.77.0.9");
  await refused("card0", /several next hops leads by card0/);
  ip("route", "delete", "192.0.2.0/24");
  ip("route", "add", "192.0.2.0/24", "via", "10.77.0.1", "advmss", "1200");
  await refused("card0", /the route to 192\.0\.2\.0\/24 by card0 has properties/);
  ip("route", "delete", "192.0.2.0/24");
  ip("link", "add", "mv0", "link", "card0", "type", "macvlan");
  await refused("card0", /carries the macvlan mv0/);
  ip("link", "delete", "mv0");
});

/** For what counts down by itself, so that nothing can be compared. */
async function refusedNow(card: string, pattern: RegExp): Promise<void> {
  using scratch = scratchSetup({ lans: [{ bridge: "lbr0", card }] });
  await assert.rejects(runSetup(scratch.host, scratch.settings), pattern);
}

test("the commands of a dry run do the same, pasted into a root shell", async () => {
  using scratch = scratchSetup(change);
  const { operationCommands } = await import("@volant/host");
  const plan = await previewSetup(scratch.host, scratch.settings);
  const script = plan.actions.flatMap(({ operations, needed }) =>
    needed ? operations.flatMap(operationCommands) : [],
  );
  const stream = await Stream.open();
  const pasted = spawnSync("/bin/sh", ["-e"], { input: `${script.join("\n")}\n`, encoding: "utf8" });
  assert.equal(pasted.status, 0, pasted.stderr);
  await stream.echo("still here\n");
  stream.close();
  onBridge();
  // It bears the mark, so that a set-up knows it again, and an undo takes it all back.
  await runSetup(scratch.host, scratch.settings);
  onBridge();
  await undoSetup(scratch.host);
  assert.doesNotMatch(ip("link", "show"), /lbr0/);
  assert.match(ip("route", "show", "default"), /^default via 10\.77\.0\.1 dev card0/);
  assert.equal(readFileSync("/proc/sys/net/ipv6/conf/card0/disable_ipv6", "utf8"), "0\n");
});
