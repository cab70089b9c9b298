import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import test from "node:test";
import { Connections } from "./connection-limit.ts";

let ports = 1;

class Client extends EventEmitter {
  readonly remotePort = ports++;
  destroyed = false;
  readonly remoteAddress: string;

  constructor(remoteAddress: string) {
    super();
    this.remoteAddress = remoteAddress;
  }

  destroy(): void {
    this.destroyed = true;
    this.emit("close");
  }
}

function connect(connections: Connections, address: string): Client & Socket {
  const client = new Client(address) as unknown as Client & Socket;
  connections.add(client);
  return client;
}

test("where there are too many, the longest idle one goes: busy ones, and those just used, stay", () => {
  const connections = new Connections({ total: 3, perAddress: 3 });
  const [busy, idle, used] = ["a", "b", "c"].map((address) => connect(connections, address));
  const ended = connections.begins(busy as Socket);
  connections.begins(used as Socket)();
  const next = connect(connections, "d");
  assert.deepEqual(
    [busy, idle, used, next].map((client) => client?.destroyed),
    [false, true, false, false],
  );
  const further = connect(connections, "e");
  assert.deepEqual(
    [used, next, further].map((client) => client?.destroyed),
    [true, false, false],
  );
  ended();
  assert.equal(connections.count, 3);
});

test("where all are busy, the new one is turned away; and there is room again when one has ended", () => {
  const connections = new Connections({ total: 2, perAddress: 2 });
  const first = connect(connections, "a");
  const ends = [first, connect(connections, "b")].map((client) => connections.begins(client));
  assert.equal(connect(connections, "c").destroyed, true);
  for (const end of ends) end();
  assert.equal(connect(connections, "c").destroyed, false);
  assert.equal(first.destroyed, true);
});

test("one address can't have all, and what it has too many costs none but its own", () => {
  const connections = new Connections({ total: 4, perAddress: 2 });
  const other = connect(connections, "other");
  const own = Array.from({ length: 5 }, () => connect(connections, "greedy"));
  assert.deepEqual(
    own.map((client) => client.destroyed),
    [true, true, true, false, false],
  );
  assert.equal(other.destroyed, false);
  const ends = own.slice(3).map((client) => connections.begins(client));
  assert.equal(connect(connections, "greedy").destroyed, true);
  assert.equal(connect(connections, "third").destroyed, false);
  for (const end of ends) end();
  for (const client of [other, ...own]) client.emit("close");
  assert.equal(connections.count, 1);
});
