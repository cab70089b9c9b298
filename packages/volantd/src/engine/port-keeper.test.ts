/** Published ports with real sockets: the guest is a server of this process. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import test, { afterEach } from "node:test";
import { VolantError } from "@volant/contract";
import type { VmPort } from "../model/published-port.ts";
import { GuestConnections } from "../publish/guest-connections.ts";
import { listenOn } from "../publish/listen.ts";
import { PortKeeper } from "./port-keeper.ts";

const LOCAL = "127.0.0.1";

async function serve(
  onConnection: (socket: Socket) => void,
): Promise<{ readonly server: Server; readonly port: number }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    // What breaks on the way breaks here, too.
    socket.on("error", () => {});
    onConnection(socket);
  });
  server.listen(0, LOCAL);
  await once(server, "listening");
  return { server, port: (server.address() as AddressInfo).port };
}

/** A free port, as of now. */
async function freePort(): Promise<number> {
  const { server, port } = await serve(() => {});
  server.close();
  await once(server, "close");
  return port;
}

async function dial(port: number): Promise<Socket> {
  const socket = connect({ port, host: LOCAL, allowHalfOpen: true });
  await once(socket, "connect");
  return socket;
}

/** The code of the error that ends a connection, which may be before it is known to stand. */
function brokenBy(socket: Socket): Promise<string | undefined> {
  socket.resume();
  return new Promise((resolve) => {
    socket.once("error", ({ code }: NodeJS.ErrnoException) => resolve(code));
    socket.once("close", () => resolve(undefined));
  });
}

const attempt = (port: number): Promise<string | undefined> => brokenBy(connect({ port, host: LOCAL }));

const open = new Set<{ close(): unknown }>();
afterEach(async () => {
  for (const each of open) await each.close();
  open.clear();
});

class Bench {
  /** What is recorded. */
  recorded: VmPort[] = [];
  /** A VM whose row holds a port although it is being deleted, or any other reason to refuse one. */
  refusal: VolantError | undefined;
  readonly told: (string | undefined)[] = [];
  readonly keeper: PortKeeper;

  constructor(dialGuest: (port: number) => Promise<Duplex>, limit?: number) {
    const connections = new GuestConnections((_vmId, port) => dialGuest(port), limit);
    const now = () => new Date(0);
    this.keeper = new PortKeeper({
      store: {
        publishedPorts: () => this.recorded,
        checkPort: () => {
          if (this.refusal !== undefined) throw this.refusal;
        },
        getVm: (id) => ({ id, spec: { name: "web" }, status: "running" }) as never,
      },
      events: { publish: (event) => void this.told.push(event.message) },
      log: {
        info: () => {},
        warn: () => {},
        error: (fields, message) => assert.fail(`${message}: ${String(fields["error"])}`),
      },
      now,
      monotonicMs: () => performance.now(),
      retryMs: 1,
      listen: (port, target) => listenOn(port, (socket) => void connections.serve(socket, target())),
    });
    open.add(this.keeper);
  }

  async publish(hostPort: number, guestPort: number): Promise<void> {
    this.recorded = [...this.recorded, { vmId: 1, address: LOCAL, hostPort, guestPort }];
    await this.keeper.sync();
  }
}

const toGuest = (port: number): Promise<Duplex> => dial(port);

test("each direction of a connection ends by itself: bytes go on in the other one", async () => {
  const guest = await serve((socket) => {
    // Answers after the client has ended, and then for as long as it likes.
    void buffer(socket).then((body) => socket.end(Buffer.concat([Buffer.from("got "), body])));
  });
  open.add(guest.server);
  const bench = new Bench(toGuest);
  const port = await freePort();
  await bench.publish(port, guest.port);
  const body = randomBytes(3 * 1024 * 1024);
  const client = await dial(port);
  client.end(body);
  assert.deepEqual(await buffer(client), Buffer.concat([Buffer.from("got "), body]));

  const early = await serve((socket) => {
    socket.end("bye");
    void buffer(socket).then((late) => early.server.emit("late", late.toString()));
  });
  open.add(early.server);
  const second = await freePort();
  await bench.publish(second, early.port);
  const late = once(early.server, "late");
  const talker = await dial(second);
  assert.equal((await buffer(talker)).toString(), "bye");
  talker.end("still here");
  assert.deepEqual(await late, ["still here"]);
});

test("200 connections at once are each their own", async () => {
  const guest = await serve((socket) => void socket.pipe(socket));
  open.add(guest.server);
  const bench = new Bench(toGuest);
  const port = await freePort();
  await bench.publish(port, guest.port);
  const answers = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const client = await dial(port);
      client.end(`number ${index}`);
      return (await buffer(client)).toString();
    }),
  );
  assert.deepEqual(
    answers,
    Array.from({ length: 200 }, (_, index) => `number ${index}`),
  );
});

test("a reader that stalls stops its own writer alone, which takes it up again where it was", async () => {
  const whole = randomBytes(32 * 1024 * 1024);
  const writers: Socket[] = [];
  const guest = await serve((socket) => {
    writers.push(socket);
    socket.end(whole);
  });
  open.add(guest.server);
  const bench = new Bench(toGuest);
  const port = await freePort();
  await bench.publish(port, guest.port);
  const stalled = await dial(port);
  await once(stalled, "readable");
  const other = await dial(port);
  assert.equal((await buffer(other)).length, whole.length);
  // All that passed through in as much time as the other one took for the whole.
  const [writer] = writers;
  assert.ok(writer !== undefined && !writer.writableFinished, "32 MiB went nowhere, and yet were taken");
  assert.ok((await buffer(stalled)).equals(whole));
});

test("where the guest refuses, or breaks off, the client is reset at once; and what a client breaks off, the guest sees", async () => {
  const bench = new Bench(async (guestPort) => {
    if (guestPort === 9) throw new VolantError("guest_unreachable", "nothing listens there");
    return toGuest(guestPort);
  });
  const [closed, broken] = [await freePort(), await freePort()];
  await bench.publish(closed, 9);
  assert.equal(await attempt(closed), "ECONNRESET");
  const guest = await serve((socket) => {
    // The stand-in for the agent's stream is a TCP connection, which breaks as the client's does.
    socket.on("error", ({ code }: NodeJS.ErrnoException) => guest.server.emit("gone", code));
    socket.once("data", (data) => {
      if (data.toString() === "break") socket.resetAndDestroy();
    });
  });
  open.add(guest.server);
  await bench.publish(broken, guest.port);
  const client = await dial(broken);
  client.write("break");
  assert.equal(await brokenBy(client), "ECONNRESET");
  const leaving = await dial(broken);
  const gone = once(guest.server, "gone");
  leaving.write("hello", () => leaving.resetAndDestroy());
  assert.deepEqual(await gone, ["ECONNRESET"]);
});

test("connections beyond a VM's limit are reset, and there is room again when one has ended", async () => {
  const guest = await serve((socket) => void socket.pipe(socket));
  open.add(guest.server);
  const bench = new Bench(toGuest, 2);
  const port = await freePort();
  await bench.publish(port, guest.port);
  const clients = [await dial(port), await dial(port)];
  for (const client of clients) {
    client.write("x");
    await once(client, "data");
  }
  assert.equal(await attempt(port), "ECONNRESET");
  clients[0]?.end();
  await buffer(clients[0] as Socket);
  // The host's end of it has closed when its place is free: that is soon, but not at the same instant.
  for (let answered = false; !answered;) {
    const client = connect({ port, host: LOCAL });
    client.on("error", () => {});
    client.write("y");
    answered = await new Promise((resolve) => {
      client.once("data", () => resolve(true));
      client.once("close", () => resolve(false));
    });
    client.destroy();
  }
  clients[1]?.destroy();
});

test("a port that another program has is said, told once, tried again, and listened on when it is free", async () => {
  const bench = new Bench(toGuest);
  const { server, port } = await serve(() => {});
  await bench.publish(port, 80);
  const [recorded] = bench.recorded;
  assert.ok(recorded !== undefined);
  assert.match(bench.keeper.state(recorded).reason ?? "", new RegExp(`127.0.0.1:${port} .* in use by another program`));
  server.close();
  await once(server, "close");
  while (!bench.keeper.state(recorded).listening) await new Promise(setImmediate);
  assert.equal(bench.told.length, 2);
  assert.match(bench.told[1] ?? "", /is listened on/);
});

test("a removed port is closed with its connections, the others go on; a port may change hands", async () => {
  const guest = await serve((socket) => void socket.pipe(socket));
  open.add(guest.server);
  const bench = new Bench(toGuest);
  const [first, second] = [await freePort(), await freePort()];
  await bench.publish(first, guest.port);
  await bench.publish(second, guest.port);
  const [leaving, staying] = [await dial(first), await dial(second)];
  for (const client of [leaving, staying]) {
    client.write("x");
    await once(client, "data");
  }
  bench.recorded = bench.recorded.filter(({ hostPort }) => hostPort === second);
  const broken = brokenBy(leaving);
  await bench.keeper.sync();
  assert.equal(await broken, "ECONNRESET");
  await assert.rejects(dial(first), { code: "ECONNREFUSED" });
  staying.write("y");
  assert.equal(String((await once(staying, "data"))[0]), "y");
  staying.on("error", () => {});
  bench.recorded = [{ vmId: 2, address: "0.0.0.0", hostPort: second, guestPort: guest.port }];
  await bench.keeper.sync();
  assert.equal((await buffer((await dial(second)).end("z"))).toString(), "z");
});

test("a claim listens before anything is recorded: kept it is the VM's, released it is free; one that fails holds nothing", async () => {
  const guest = await serve((socket) => void socket.pipe(socket));
  open.add(guest.server);
  const bench = new Bench(toGuest);
  const { keeper } = bench;
  const [port, free] = [await freePort(), await freePort()];
  const wanted = { address: LOCAL, hostPort: port, guestPort: guest.port };
  const claim = await keeper.claim([wanted]);
  await assert.rejects(keeper.claim([wanted]), { code: "in_use", message: /about to be another VM's/ });
  await keeper.sync();
  bench.recorded = [{ ...wanted, vmId: 1 }];
  claim.keep(1);
  await keeper.sync();
  assert.equal((await buffer((await dial(port)).end("kept"))).toString(), "kept");
  assert.deepEqual(bench.told, []);

  const taken = await serve(() => {});
  open.add(taken.server);
  const both = [
    { address: LOCAL, hostPort: free, guestPort: 80 },
    { address: LOCAL, hostPort: taken.port, guestPort: 80 },
  ];
  await assert.rejects(keeper.claim(both), { code: "in_use" });
  await assert.rejects(dial(free), { code: "ECONNREFUSED" });
  (await keeper.claim(both.slice(0, 1))).release();
  await assert.rejects(dial(free), { code: "ECONNREFUSED" });
  bench.refusal = new VolantError("in_use", "it is another VM's");
  await assert.rejects(keeper.claim(both.slice(0, 1)), { message: "it is another VM's" });
});

test("a VM changes its port's address for another one: the old listener makes room, and is back when that fails", async () => {
  const guest = await serve((socket) => void socket.pipe(socket));
  open.add(guest.server);
  const bench = new Bench(toGuest);
  const port = await freePort();
  await bench.publish(port, guest.port);
  const wider = { address: "0.0.0.0", hostPort: port, guestPort: guest.port };
  const claim = await bench.keeper.claim([wider], 1, bench.recorded);
  claim.release();
  await bench.keeper.sync();
  assert.equal((await buffer((await dial(port)).end("back"))).toString(), "back");
  const again = await bench.keeper.claim([wider], 1, bench.recorded);
  bench.recorded = [{ ...wider, vmId: 1 }];
  again.keep(1);
  await bench.keeper.sync();
  assert.equal((await buffer((await dial(port)).end("wide"))).toString(), "wide");
});

test("an address that this host has not is said so", async () => {
  const bench = new Bench(toGuest);
  const port = { address: "192.0.2.1", hostPort: await freePort(), guestPort: 80 };
  await assert.rejects(bench.keeper.claim([port]), {
    code: "invalid",
    message: /192\.0\.2\.1 is no address of this host/,
  });
});

test("IPv6 and IPv4 are listened on each by itself", async () => {
  const bench = new Bench(toGuest);
  const hostPort = await freePort();
  const claim = await bench.keeper.claim([
    { address: "::", hostPort, guestPort: 80 },
    { address: "0.0.0.0", hostPort, guestPort: 80 },
  ]);
  claim.release();
});
