import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import test, { after } from "node:test";
import { Netlink } from "@volant/netlink";
import { listenForLease } from "../../packages/host/src/policy/lease-listener.ts";
import type { LeaseChange } from "../../packages/host/src/policy/lease-watch.ts";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { dhcp, ethernet, ipv4, udp } from "./policy-frames.ts";
import { BRIDGE, deleteBridge, makeBridge, Port } from "./policy-lan.ts";

enterOwnNamespace(import.meta.url);

const GUEST = "02:77:00:00:00:02";
const SERVER = "02:77:00:00:00:05";
const netlink = await Netlink.open();
makeBridge();
const guest = await Port.open("vttap-guest", undefined);
const server = await Port.open("server0", undefined);
after(async () => {
  guest[Symbol.dispose]();
  server[Symbol.dispose]();
  deleteBridge();
  await netlink.close();
});
const link = Number(ipJson("link", "show", "dev", "vttap-guest")[0]?.["ifindex"]);
const REQUEST = 3;
const ACK = 5;
const NAK = 6;

function ask(transaction: number): void {
  const payload = dhcp({ operation: 1, transaction, hardware: GUEST, type: REQUEST });
  guest.send(ethernet(GUEST, 0x0800, ipv4({ source: "0.0.0.0" }, udp(68, 67, payload))));
}

interface Answer {
  readonly type?: number;
  readonly hardware?: string;
  readonly from?: Port;
}

function answer(
  transaction: number,
  given: string,
  { type = ACK, hardware = GUEST, from = server }: Answer = {},
): void {
  const payload = dhcp({ operation: 2, transaction, hardware, type, given, leaseSeconds: 60 });
  from.send(ethernet(SERVER, 0x0800, ipv4({ source: "10.77.0.1" }, udp(67, 68, payload))));
}

/** Follows the guest's lease: what changes is kept in `changes`, and told by `news`. */
function follow() {
  const news = new EventEmitter();
  const changes: LeaseChange[] = [];
  const listener = listenForLease({
    link,
    mac: GUEST,
    holds: false,
    onChange: (change) => {
      changes.push(change);
      news.emit("change");
    },
    onEnd: () => news.emit("end"),
  });
  return { news, changes, listener };
}

test("a lease is learned from the server's answer on its way to the tap, and from nothing that the guest or others say", async () => {
  const { news, changes, listener } = follow();
  const next = () => once(news, "change", { signal: AbortSignal.timeout(60_000) });
  answer(1, "10.77.0.20");
  ask(2);
  answer(1, "10.77.0.21");
  answer(2, "10.77.0.22", { hardware: SERVER });
  // The guest's own word for what it was given.
  answer(2, "10.77.0.23", { from: guest });
  let changed = next();
  answer(2, "10.77.0.24");
  await changed;
  assert.deepEqual(changes.splice(0), [
    { kind: "granted", address: "10.77.0.24", leaseSeconds: 60, server: "10.77.0.1" },
  ]);
  changed = next();
  ask(3);
  answer(3, "0.0.0.0", { type: NAK });
  await changed;
  assert.deepEqual(changes.splice(0), [{ kind: "lost" }]);
  const ended = once(news, "end", { signal: AbortSignal.timeout(60_000) });
  ip("link", "set", "vttap-guest", "down");
  await ended;
  listener.close();
  assert.deepEqual(changes, []);
});

test("of what else passes by, even a thousand frames, nothing reaches the listener", async () => {
  ip("link", "set", "vttap-guest", "up", "master", BRIDGE);
  const { news, changes, listener } = follow();
  const changed = once(news, "change", { signal: AbortSignal.timeout(60_000) });
  ask(4);
  const other = ethernet(SERVER, 0x0800, ipv4({ source: "10.77.0.1" }, udp(67, 69, Buffer.alloc(300))));
  for (let frame = 0; frame < 1000; frame += 1) server.send(other);
  answer(4, "10.77.0.30");
  await changed;
  assert.equal(changes.length, 1);
  listener.close();
});
