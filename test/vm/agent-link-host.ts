/**
 * Plays volantd for agent-link.test.ts, which kills it: attaches, configures, and follows the log of a workload that prints without end. Says on
 * standard output, as one line of JSON, when it is in the middle of that.
 *
 *     node agent-link-host.ts <control socket> <stream socket> <configuration as JSON>
 */
import { randomBytes } from "node:crypto";
import { GuestLink } from "../../packages/volantd/src/guest/link.ts";
import type { GuestConfig } from "../../packages/volantd/src/guest/guest-config.ts";

const [controlPath = "", streamPath = "", config = "{}"] = process.argv.slice(2);
const link = GuestLink.open({
  controlPath,
  streamPath,
  identity: { vmId: 1, name: "flood", hostname: "flood" },
  generation: 1,
  now: () => new Date(),
  randomNonce: () => randomBytes(16).toString("hex"),
});
// Whoever attaches must stay alive: the link itself keeps no process running.
const alive = setInterval(() => {}, 60_000);
await link.attached();
const changed = await link.configure(JSON.parse(config) as GuestConfig);
const { workload, configVersion } = await link.status();
let seen = 0;
let last = 0;
for await (const entry of link.logs({ follow: true })) {
  if (entry.kind === "gap") continue;
  // Numbers only ever grow, and every line is whole: bytes of another session would break either.
  if (entry.seq <= last || !/^(0123456789abcdef){16}$/.test(entry.line)) {
    if (entry.stream !== "agent") throw new Error(`the log is torn at ${entry.seq} after ${last}: ${entry.line}`);
  }
  last = entry.seq;
  if (++seen === 500) process.stdout.write(`${JSON.stringify({ changed, workload, configVersion, last })}\n`);
}
clearInterval(alive);
