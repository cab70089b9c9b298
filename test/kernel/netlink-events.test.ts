import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import test, { after } from "node:test";
import { Netlink, type NetlinkEvent, NetlinkError, type Topic } from "@volant/netlink";
import { enterOwnNamespace, ip } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

const nl = await Netlink.open();
after(() => nl.close());
const openFiles = () => readdirSync("/proc/self/fd").length;

/** Takes events until one fits. */
async function until(
  events: AsyncIterator<NetlinkEvent>,
  fits: (event: NetlinkEvent) => boolean,
): Promise<NetlinkEvent> {
  for (;;) {
    const { done, value } = await events.next();
    if (done === true) throw new Error("the subscription ended before the event came");
    if (fits(value)) return value;
  }
}

test("what ip does to links, addresses, routes and neighbours arrives as events, in order", async () => {
  const events = nl.subscribe(["link", "address", "route", "neighbour"]);
  ip("link", "add", "br0", "type", "bridge");
  ip("link", "set", "br0", "up");
  ip("address", "add", "192.0.2.1/24", "dev", "br0");
  ip("neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "br0", "nud", "permanent");
  ip("address", "delete", "192.0.2.1/24", "dev", "br0");
  ip("link", "delete", "br0");
  await until(events, (event) => event.type === "link" && event.action === "set" && event.link.name === "br0");
  await until(events, (event) => event.type === "link" && event.link.flags.up);
  await until(
    events,
    (event) => event.type === "address" && event.action === "set" && event.address.address === "192.0.2.1",
  );
  await until(
    events,
    (event) => event.type === "route" && event.action === "set" && event.route.destination === "192.0.2.0/24",
  );
  await until(
    events,
    (event) => event.type === "neighbour" && event.action === "set" && event.neighbour.state === "permanent",
  );
  await until(events, (event) => event.type === "route" && event.action === "delete");
  await until(events, (event) => event.type === "address" && event.action === "delete");
  await until(events, (event) => event.type === "link" && event.action === "delete" && event.link.name === "br0");
  await events.return?.();
});

test("a port that leaves its bridge is a bridge-port event, not a link that is gone", async () => {
  await nl.links.create({ name: "br0", kind: "bridge" });
  await nl.links.create({ name: "i0", kind: "ifb", master: "br0", up: true });
  const events = nl.subscribe(["link"]);
  await nl.links.set("i0", { master: null });
  await nl.links.set("i0", { alias: "last" });
  const seen: NetlinkEvent[] = [];
  await until(events, (event) => {
    seen.push(event);
    return event.type === "link" && event.link.alias === "last";
  });
  assert.ok(
    seen.some((event) => event.type === "bridge-port" && event.action === "delete" && event.link.name === "i0"),
  );
  assert.ok(!seen.some((event) => event.type === "link" && event.action === "delete"));
  await events.return?.();
  await nl.links.delete("i0");
  await nl.links.delete("br0");
});

test("a subscription hears of nothing that it did not ask for", async () => {
  const events = nl.subscribe(["address"]);
  await nl.links.create({ name: "i0", kind: "ifb" });
  await nl.addresses.add({ link: "i0", address: "192.0.2.1", prefixLength: 24 });
  const { value } = await events.next();
  assert.equal((value as NetlinkEvent).type, "address");
  await events.return?.();
  await nl.links.delete("i0");
});

test("an abort ends a wait, and the loop around it, without an error and without leaving a descriptor", async () => {
  const files = openFiles();
  const controller = new AbortController();
  const loop = (async () => {
    for await (const event of nl.subscribe(["route"], { signal: controller.signal })) assert.fail(event.type);
    return "ended";
  })();
  await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  assert.equal(await loop, "ended");
  const already = nl.subscribe(["link"], { signal: controller.signal });
  assert.equal((await already.next()).done, true);
  assert.equal(openFiles(), files);
});

test("leaving the loop ends the subscription", async () => {
  const files = openFiles();
  const events = nl.subscribe(["link"]);
  await nl.links.set("lo", { alias: "x" });
  for await (const event of events) {
    assert.equal(event.type, "link");
    break;
  }
  assert.equal(openFiles(), files);
  assert.equal((await events.next()).done, true);
});

test("closing Netlink ends its subscriptions", async () => {
  const other = await Netlink.open();
  const waiting = other.subscribe(["link"]).next();
  await other.close();
  assert.equal((await waiting).done, true);
});

test("events that did not fit are reported as an overrun, and later ones arrive", async () => {
  const events = nl.subscribe(["link"], { receiveBufferBytes: 4096 });
  for (let round = 0; round < 20; round++) await nl.links.set("lo", { alias: `round ${round}` });
  await until(events, (event) => event.type === "overrun");
  const rest = until(events, (event) => event.type === "link" && event.link.alias === "afterwards");
  await nl.links.set("lo", { alias: "afterwards" });
  await rest;
  await events.return?.();
});

test("a thousand events in a row do not keep the event loop from its other work", async () => {
  const events = nl.subscribe(["link"]);
  for (let round = 0; round < 500; round++) await nl.links.set("lo", { alias: `round ${round}` });
  let turns = 0;
  let reading = true;
  const count = () => {
    turns += 1;
    if (reading) setImmediate(count);
  };
  setImmediate(count);
  await until(events, (event) => event.type === "link" && event.link.alias === "round 499");
  reading = false;
  assert.ok(turns > 2, `the loop turned ${turns} times`);
  await events.return?.();
});

test("a topic that does not exist is refused", () => {
  assert.throws(
    () => nl.subscribe(["weather" as Topic]),
    (error: unknown) => error instanceof NetlinkError && error.code === "EINVAL",
  );
});
