/** A real guest whose host is so busy that it hardly gets to boot: it must end up as one that had all the time. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import test from "node:test";
import { GuestLink } from "../../packages/volantd/src/guest/link.ts";
import { within } from "../patience.ts";
import { AgentGuest } from "./agent-guest.ts";

/**
 * A turn of the processor, and a wait for the next one that is longer than the 104 ms in which a kernel measures its timer: wherever in its boot that is, it is
 * torn apart.
 */
const TURN_MS = 4;
const WAIT_MS = 130;
/** Processor time in which a guest has long measured its timer, and not yet started its agent. */
const STARVED_CPU_MS = 1000;
const LIMIT_MS = 300_000;

test("a guest that is kept from the processor again and again while it boots has a timer all the same: it takes its configuration, and time passes in it", async () => {
  const guest = new AgentGuest({
    append: "ip=10.0.2.15::10.0.2.2:255.255.255.0:web:eth0:off",
    network: ["-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-pci,netdev=n0,romfile="],
  });
  const link = GuestLink.open({
    controlPath: guest.controlPath,
    streamPath: guest.streamPath,
    identity: { vmId: 1, name: "web", hostname: "web" },
    generation: 1,
    now: () => new Date(),
    randomNonce: () => randomBytes(16).toString("hex"),
  });
  try {
    await starve(guest);
    await link.attached(AbortSignal.timeout(LIMIT_MS));
    const config = {
      configVersion: "1",
      hostname: "web",
      network: { mode: "bridged" as const, mac: "02:00:00:00:00:07" },
      workload: { entrypoint: ["/bin/busybox", "sh", "-c", "/bin/busybox sleep 0.1; echo a moment later"] },
    };
    const seen = () =>
      `the link is ${link.state}, ${link.lastError?.message}; the console: ${guest.console.slice(-2000)}`;
    assert.equal(await within(link.configure(config), "a guest that takes its configuration", seen, LIMIT_MS), true);
    await guest.shows("stdout: a moment later");
  } finally {
    await link.close();
    await guest.close();
  }
});

async function starve(guest: AgentGuest): Promise<void> {
  try {
    while (guest.isRunning && guest.cpuMs() < STARVED_CPU_MS) {
      process.kill(guest.pid, "SIGSTOP");
      await sleep(WAIT_MS);
      process.kill(guest.pid, "SIGCONT");
      await sleep(TURN_MS);
    }
    assert.ok(guest.isRunning, `the guest ended while it booted: ${guest.console.slice(-2000)}`);
  } finally {
    if (guest.isRunning) process.kill(guest.pid, "SIGCONT");
  }
}
