import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import test from "node:test";
import { type ForwardingChange, watchForwarding } from "@volant/netlink";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { within } from "../patience.ts";

enterOwnNamespace(import.meta.url);

test("forwarding that is turned on or off is told, for all links and for one, and so is that of a link that comes", async () => {
  const stop = new AbortController();
  const changes = watchForwarding(stop.signal);
  const seen: ForwardingChange[] = [];
  const first = changes.next();
  const until = async (link: ForwardingChange["link"], on: boolean, next = changes.next()): Promise<void> => {
    for (;;) {
      const what = `forwarding of ${link} ${on ? "on" : "off"}`;
      const { value } = await within(next, what, () => JSON.stringify(seen));
      assert.ok(value !== undefined, "it goes on");
      seen.push(value);
      if (value.link === link && "on" in value && value.on === on) return;
      next = changes.next();
    }
  };
  writeFileSync("/proc/sys/net/ipv4/ip_forward", "1");
  await until("all", true, first);
  ip("link", "add", "some0", "type", "bridge");
  const index = Number(ipJson("link", "show", "dev", "some0")[0]?.["ifindex"]);
  await until(index, true);
  writeFileSync("/proc/sys/net/ipv4/conf/some0/forwarding", "0");
  await until(index, false);
  writeFileSync("/proc/sys/net/ipv4/ip_forward", "0");
  await until("all", false);
  const last = changes.next();
  stop.abort();
  // What of the links was still to be told may come first.
  await within(
    (async () => {
      for (let next = await last; next.done !== true; next = await changes.next());
    })(),
    "the end of the watch",
  );
});
