/** The agent in a real guest, and the link to it, through the death of its host. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import test, { after, before, describe } from "node:test";
import { gzipSync } from "node:zlib";
import type { GuestConfig } from "../../packages/volantd/src/guest/guest-config.ts";
import type { GuestStatus } from "../../packages/volantd/src/guest/guest-status.ts";
import { GuestLink } from "../../packages/volantd/src/guest/link.ts";
import { PATIENCE_MS } from "../patience.ts";
import { AgentGuest, type AgentGuestOptions } from "./agent-guest.ts";
import { enterOwnNamespace } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

function open(guest: AgentGuest, name = "web", generation = 1): GuestLink {
  return GuestLink.open({
    controlPath: guest.controlPath,
    streamPath: guest.streamPath,
    identity: { vmId: 1, name, hostname: name },
    generation,
    now: () => new Date(),
    randomNonce: () => randomBytes(16).toString("hex"),
  });
}

/** The first status that fits, from the last one on. */
async function statusThat(link: GuestLink, fits: (status: GuestStatus) => boolean): Promise<GuestStatus> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  let status = link.lastStatus;
  while (status === undefined || !fits(status)) [status] = (await once(link, "status", { signal })) as [GuestStatus];
  return status;
}

async function logOf(link: GuestLink): Promise<string[]> {
  const lines: string[] = [];
  for await (const entry of link.logs()) if (entry.kind === "line") lines.push(entry.line);
  return lines;
}

/** Adds a script at /workload to the guest. */
function script(text: string): NonNullable<AgentGuestOptions["extraFiles"]>[number] {
  return { path: "workload", mode: 0o100755, content: Buffer.from(`#!/bin/sh\n${text}`) };
}

describe("a host that dies in the middle of a transfer", () => {
  const config: GuestConfig = {
    configVersion: "1",
    hostname: "flood",
    workload: { entrypoint: ["/bin/busybox", "yes", "0123456789abcdef".repeat(16)] },
  };
  let guest: AgentGuest;
  before(() => {
    guest = new AgentGuest();
  });
  after(() => guest.close());

  /** Starts a host, waits until it is in the middle of a transfer, kills it, and returns what it said. */
  async function liveAndDie(): Promise<{ changed: boolean; configVersion: string; workload: GuestStatus["workload"] }> {
    const args = [join(import.meta.dirname, "agent-link-host.ts"), guest.controlPath, guest.streamPath];
    const host = spawn(process.execPath, [...args, JSON.stringify(config)], { stdio: ["ignore", "pipe", "inherit"] });
    const gone = new Promise<void>((resolve) => host.once("close", () => resolve()));
    try {
      for await (const line of createInterface({ input: host.stdout })) return JSON.parse(line);
      throw new Error("the host ended by itself");
    } finally {
      host.kill("SIGKILL");
      await gone;
    }
  }

  test("finds a clean session, its configuration and the same workload process, twenty-five times over", async () => {
    const first = await liveAndDie();
    assert.equal(first.changed, true);
    assert.ok(first.workload.state === "running");
    for (let round = 1; round <= 25; round++) {
      const { changed, configVersion, workload } = await liveAndDie();
      assert.deepEqual(
        { changed, configVersion, workload },
        { changed: false, configVersion: "1", workload: first.workload },
      );
    }
  });

  test("and so does one that comes and goes two hundred times without a pause", async () => {
    for (let round = 1; round <= 200; round++) {
      const link = open(guest, "flood");
      try {
        await link.attached(AbortSignal.timeout(PATIENCE_MS));
        if (round % 10 === 0) assert.equal((await link.status()).workload.restarts, 0);
      } finally {
        await link.close();
      }
    }
  });

  test("the agent stays small, and the power button ends the guest in good order", async () => {
    const link = open(guest, "flood");
    await link.attached();
    const { memory } = await link.status();
    assert.ok(memory.agentKib > 0 && memory.agentKib <= 4096, `${memory.agentKib} KiB resident`);
    await link.close();
    await guest.qmp("system_powerdown");
    assert.equal(await guest.off(), 0);
    assert.match(guest.console, /the power button was pressed/);
    assert.match(guest.console, /kestrel: powering off/);
  });
});

describe("a configured guest", () => {
  const config: GuestConfig = {
    configVersion: "1",
    hostname: "web",
    network: { mode: "bridged" },
    nameservers: ["10.0.2.3"],
    search: ["example.org"],
    env: { GREETING: "hello you" },
    workload: { entrypoint: ["/workload"], baseUrl: "http://127.0.0.1:8080", workdir: "/tmp" },
    healthCheck: { endpoint: "/index.html", timeoutMs: 1000 },
  };
  let guest: AgentGuest;
  let link: GuestLink;

  before(async () => {
    const workload = script(`
      b=/bin/busybox
      runs=$($b cat /tmp/runs 2>/dev/null || echo 0)
      echo $((runs + 1)) > /tmp/runs
      [ $runs -lt 2 ] && exit 3
      trap 'echo stopping; exit 0' TERM
      echo "env $GREETING $VOLANT_VM_NAME $VOLANT_ADDRESS $($b pwd)"
      echo "hostname $($b hostname) $($b cat /etc/hostname)"
      echo "resolv $($b tr '\\n' ' ' < /etc/resolv.conf)"
      echo "hosts $($b grep web /etc/hosts)"
      echo "addr $($b ip -4 -o addr show eth0)"
      echo "route $($b ip route show default)"
      echo "lo $($b ip -4 -o addr show lo)"
      echo "session $($b cut -d' ' -f1,6 /proc/$$/stat) $$"
      i=0; while [ $i -lt 60 ]; do ($b sh -c "$b true & exec $b true"); i=$((i + 1)); done
      echo "err" >&2
      $b sleep 0.3
      echo "zombies $($b grep -l ') Z ' /proc/[0-9]*/stat 2>/dev/null | $b wc -l)"
      echo fine > /tmp/index.html
      $b httpd -p 127.0.0.1:8080 -h /tmp
      echo "serving"
      while :; do $b sleep 1 & wait $!; done`);
    guest = new AgentGuest({
      append: "ip=10.0.2.15::10.0.2.2:255.255.255.0:before:eth0:off",
      network: ["-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-pci,netdev=n0,romfile="],
      extraFiles: [workload, { path: "etc", mode: 0o120777, content: Buffer.from("/nowhere") }],
      rtcBase: "2001-01-01T00:00:00",
    });
    link = open(guest);
    await link.attached();
  });
  after(async () => {
    await link.close();
    await guest.close();
  });

  test("waits for its configuration with the address of its command line applied", async () => {
    const { workload, network, configVersion } = await link.status();
    assert.equal(workload.state, "waiting_for_config");
    assert.equal(configVersion, undefined);
    assert.deepEqual(
      [network.applied, network.address, network.prefixLength, network.gateway],
      [true, "10.0.2.15", 24, "10.0.2.2"],
    );
  });

  test("refuses what it can't apply, by name, and stays as it was", async () => {
    await assert.rejects(link.configure({ configVersion: "0", network: { mode: "dhcp", address: "10.0.2.9" } }), {
      code: "invalid",
      message: /network\.address/,
    });
    await assert.rejects(link.configure({ configVersion: "0", hostname: "No" }), {
      code: "invalid",
      message: /hostname/,
    });
    assert.equal((await link.status()).configVersion, undefined);
  });

  test("starts a workload again that crashes, until it is healthy", async () => {
    assert.equal(await link.configure(config), true);
    const status = await statusThat(link, ({ health }) => health.state === "healthy");
    assert.equal(status.workload.state, "running");
    assert.equal(status.workload.restarts, 2);
    assert.ok((await logOf(link)).includes("the workload ended with code 3"));
  });

  test("gives the workload its environment, names, address and a session of its own", async () => {
    const lines = await logOf(link);
    const said = (word: string) => lines.find((line) => line.startsWith(`${word} `)) ?? "";
    assert.equal(said("env"), "env hello you web 10.0.2.15 /tmp");
    assert.equal(said("hostname"), "hostname web web");
    assert.equal(said("resolv"), "resolv search example.org nameserver 10.0.2.3 ");
    assert.match(said("hosts"), /^hosts 10\.0\.2\.15 web/);
    assert.match(said("addr"), /inet 10\.0\.2\.15\/24 brd 10\.0\.2\.255/);
    assert.match(said("route"), /^route default via 10\.0\.2\.2 dev eth0/);
    assert.match(said("lo"), /inet 127\.0\.0\.1\/8/);
    assert.match(said("session"), /^session (\d+) \1 \1$/);
  });

  test("reaps every orphan", async () => {
    assert.ok((await logOf(link)).includes("zombies 0"));
  });

  test("numbers its log without holes, tells streams apart, and sets a clock that was wrong", async () => {
    let seq = 0;
    for await (const entry of link.logs()) {
      assert.ok(entry.kind === "line");
      assert.equal(entry.seq, ++seq);
      assert.ok(Math.abs(Date.parse(entry.timestamp) - Date.now()) < 60_000, entry.timestamp);
      if (entry.line === "err") assert.equal(entry.stream, "stderr");
    }
    const rest: number[] = [];
    for await (const entry of link.logs({ after: seq - 1 })) if (entry.kind === "line") rest.push(entry.seq);
    assert.equal(rest[0], seq);
  });

  test("does nothing for a version it has, and does not restart a workload that did not change", async () => {
    const before = await link.status();
    assert.equal(await link.configure(config), false);
    assert.equal(await link.configure({ ...config, configVersion: "2", nameservers: ["10.0.2.4"] }), true);
    const status = await link.status();
    assert.deepEqual(status.workload, before.workload);
    assert.equal(status.configVersion, "2");
  });

  test("answers unknown resources and malformed bodies with JSON errors", async () => {
    for (const [method, path, body, expected] of [
      ["GET", "/v1/nothing", undefined, 404],
      ["DELETE", "/v1/config", undefined, 405],
      ["PUT", "/v1/config", "[]", 400],
    ] as const) {
      const { status, stream } = await link.request({ method, path, ...(body === undefined ? {} : { body }) });
      assert.equal(status, expected, path);
      const answer = JSON.parse(await text(stream));
      assert.deepEqual(Object.keys(answer).toSorted(), ["code", "error"]);
    }
  });

  test("asks its workload to stop, then powers off", async () => {
    await link.shutdown({ mode: "poweroff", timeoutMs: 10_000 });
    assert.equal(await guest.off(), 0);
    assert.match(guest.console, /stdout: stopping/);
    assert.match(guest.console, /kestrel: powering off/);
  });
});

test("a root disk that this agent can't use is said on the console, and the guest ends", async () => {
  const guest = new AgentGuest({ append: "volant.rootfs_device=vda" });
  try {
    await guest.off();
    assert.match(guest.console, /kestrel: fatal: root disk vda: /);
  } finally {
    await guest.close();
  }
});

test("a guest that no host calls goes by the manifest of its command line, and a workload that hangs on is killed at the end", async () => {
  const manifest = { name: "v1", version: "1", workload: { type: "http", entrypoint: ["/workload"] } };
  const encoded = gzipSync(JSON.stringify(manifest)).toString("base64url");
  const guest = new AgentGuest({
    append: `volant.manifest=${encoded}`,
    extraFiles: [script("trap '' TERM\necho from the manifest\nwhile :; do /bin/busybox sleep 60; done")],
  });
  try {
    await guest.shows("stdout: from the manifest");
    const link = open(guest);
    await link.attached();
    assert.equal((await link.status()).configVersion, "command-line");
    await link.shutdown({ mode: "reboot", timeoutMs: 100 });
    await guest.off();
    await link.close();
    assert.match(guest.console, /did not end within 100 ms: killing it/);
    assert.match(guest.console, /kestrel: restarting/);
  } finally {
    await guest.close();
  }
});
