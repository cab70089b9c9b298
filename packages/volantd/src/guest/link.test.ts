import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { constants, performServerHandshake, type ServerHttp2Stream } from "node:http2";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { addAbortSignal, type Duplex, PassThrough, Readable } from "node:stream";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { LineReader } from "./line-reader.ts";
import { GuestLink } from "./link.ts";
import { SyncScanner, syncLine } from "./stream-sync.ts";

interface Hello {
  readonly type: string;
  readonly nonce: string;
  readonly wall_time: string;
}

type Behaviour = {
  /** Sent on the stream before its sync line. */
  stale?: string;
  /** Sent right after its sync line, where an agent has nothing to say. */
  early?: string;
  /** The guest's clock in its ack. */
  wallTime?: string;
  /** Hellos that go unanswered first. */
  deafFor?: number;
  /** Sync lines that get lost on their way first. */
  lostLines?: number;
  /** Never speaks HTTP/2. */
  mute?: boolean;
  /** Answers the sync line with random bytes. */
  nonsense?: boolean;
  answer?: (stream: ServerHttp2Stream, path: string) => void;
};

/** Plays hypervisor and agent on two Unix sockets. */
class FakeGuest {
  readonly directory = mkdtempSync(join(tmpdir(), "guest-link-"));
  readonly behaviour: Behaviour;
  readonly lines: Hello[] = [];
  readonly heard = new EventEmitter<{ line: [] }>();
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  #stream: Socket | undefined;

  constructor(behaviour: Behaviour) {
    this.behaviour = behaviour;
  }

  async listen(): Promise<void> {
    const serve = async (name: string, onSocket: (socket: Socket) => void) => {
      const server = createServer((socket) => {
        this.#sockets.add(socket);
        socket.on("error", () => {}).once("close", () => this.#sockets.delete(socket));
        onSocket(socket);
      });
      this.#servers.push(server);
      server.listen(join(this.directory, name));
      await once(server, "listening");
    };
    await serve("stream", (socket) => {
      this.#stream = socket;
    });
    await serve("control", (socket) => {
      const reader = new LineReader(65_536);
      socket.on("data", (bytes: Buffer) => {
        for (const line of reader.feed(bytes)) this.#receive(socket, JSON.parse(line) as Hello);
      });
    });
  }

  #receive(control: Socket, hello: Hello): void {
    this.lines.push(hello);
    this.heard.emit("line");
    if (hello.type !== "hello" || this.lines.length <= (this.behaviour.deafFor ?? 0)) return;
    const agent = { version: "0.1.0", protocol: 1, kernel: "6.1", boot_id: "b" };
    const wall_time = this.behaviour.wallTime ?? new Date().toISOString();
    const ack = JSON.stringify({ type: "ack", nonce: hello.nonce, wall_time, agent });
    control.write(`\nnoise\n${ack.slice(0, 20)}\n${ack.replace(hello.nonce, "0".repeat(32))}\n${ack}\n`);
    this.#begin(hello.nonce);
  }

  #begin(nonce: string): void {
    const socket = this.#stream;
    assert.ok(socket);
    const scanner = new SyncScanner(nonce);
    const onData = (bytes: Buffer) => {
      const used = scanner.feed(bytes);
      if (used !== undefined && this.behaviour.nonsense === true) socket.write(randomBytes(65_536));
      if (used === undefined || this.behaviour.mute === true) return;
      socket.off("data", onData);
      socket.pause();
      socket.unshift(bytes.subarray(used));
      const http = performServerHandshake(socket);
      http.on("error", () => {});
      http.on("stream", (stream, headers) => {
        stream.on("error", () => {});
        const path = headers[":path"] ?? "";
        if (this.behaviour.answer) return this.behaviour.answer(stream, path);
        stream.respond({ ":status": 200 });
        stream.end(JSON.stringify({ changed: true, path }));
      });
    };
    socket.on("data", onData);
    if (this.behaviour.lostLines !== undefined && this.behaviour.lostLines-- > 0) return;
    socket.write(`${this.behaviour.stale ?? ""}${syncLine(nonce)}${this.behaviour.early ?? ""}`);
  }

  /** Reads nothing while it pauses, and so answers nothing. */
  pause(isPaused: boolean): void {
    for (const socket of this.#sockets) {
      if (isPaused) socket.pause();
      else socket.resume();
    }
  }

  /** The host's end sees every connection fall. */
  drop(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.drop();
    await Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function start(context: TestContext, behaviour: Behaviour = {}, heartbeatMs = 5000) {
  const guest = new FakeGuest(behaviour);
  await guest.listen();
  const link = GuestLink.open({
    controlPath: join(guest.directory, "control"),
    streamPath: join(guest.directory, "stream"),
    identity: { vmId: 1, name: "a", hostname: "a" },
    generation: 1,
    now: () => new Date(),
    randomNonce: () => randomBytes(16).toString("hex"),
    heartbeatMs,
  });
  context.after(async () => {
    await link.close();
    await guest.close();
  });
  return { guest, link };
}

const config = { configVersion: "1" };

test("the link attaches behind stale bytes of earlier sessions", async (context) => {
  const { link } = await start(context, { stale: `half a frame${syncLine("f".repeat(32))}volant-stream 0` });
  assert.equal((await link.attached()).kernel, "6.1");
  assert.equal(link.state, "attached");
  assert.equal(await link.configure(config), true);
});

test("a link attaches again after each interruption, with a new nonce, and requests in between are refused", async (context) => {
  const { guest, link } = await start(context);
  for (let round = 0; round < 5; round++) {
    await link.attached();
    await link.configure(config);
    const detached = once(link, "detached");
    guest.drop();
    await detached;
    await assert.rejects(link.configure(config), { code: "guest_unreachable" });
  }
  await link.attached();
  assert.equal(new Set(guest.lines.map((line) => line.nonce)).size, 6);
});

test("an agent whose line on the stream port gets lost is greeted anew, and attaches", async (context) => {
  const { guest, link } = await start(context, { lostLines: 2 }, 50);
  const { version } = await link.attached(AbortSignal.timeout(60_000));
  assert.equal(version, "0.1.0");
  assert.equal(new Set(guest.lines.map((line) => line.nonce)).size, 3);
});

test("requests under way fail when the link breaks, and a followed log does not just end", async (context) => {
  const { guest, link } = await start(context, {
    answer: (stream, path) => {
      if (!path.startsWith("/v1/logs")) return;
      stream.respond({ ":status": 200 });
      stream.write('{"seq":1,"stream":"stdout","line":"x","timestamp":"2026-01-02T03:04:05.678Z"}\nnoise\n');
    },
  });
  await link.attached();
  const pending = link.status();
  const entries: number[] = [];
  const followed = (async () => {
    for await (const entry of link.logs({ follow: true })) {
      if (entry.kind === "line") entries.push(entry.seq);
      guest.drop();
    }
  })();
  await assert.rejects(pending, { code: "guest_unreachable" });
  await assert.rejects(followed, { code: "guest_unreachable" });
  assert.deepEqual(entries, [1]);
});

test("an aborted watch ends without an error, and the link goes on", async (context) => {
  const { link } = await start(context, {
    answer: (stream, path) => {
      stream.respond({ ":status": 200 });
      if (path === "/v1/config") stream.end('{"changed":false}');
      else stream.write("\n");
    },
  });
  await link.attached();
  const abort = new AbortController();
  const watching = (async () => {
    for await (const _ of link.watchStatus(abort.signal)) assert.fail("there is no status");
  })();
  assert.equal(await link.configure(config), false);
  abort.abort();
  await watching;
  assert.equal(await link.configure(config), false);
});

test("a hello is repeated with the same nonce until the agent answers", async (context) => {
  const { guest, link } = await start(context, { deafFor: 1 });
  await link.attached();
  assert.equal(guest.lines.length, 2);
  assert.equal(guest.lines[0]?.nonce, guest.lines[1]?.nonce);
});

test("a guest whose clock is wrong is told the time after its ack", async (context) => {
  const { guest, link } = await start(context, { wallTime: "2001-01-01T00:00:00.000Z" });
  await link.attached();
  await link.configure(config);
  assert.deepEqual(
    guest.lines.map((line) => line.type),
    ["hello", "clock"],
  );
});

test("a guest that sends without end is cut off", async (context) => {
  const { link } = await start(context, {
    answer: (stream) => {
      stream.respond({ ":status": 200 });
      const chunk = Buffer.alloc(65_536, "x");
      const more = () => {
        while (!stream.destroyed && stream.write(chunk));
        stream.once("drain", more);
      };
      more();
    },
  });
  await link.attached();
  await assert.rejects(link.status(), /endless answer/);
});

test("the agent's refusals keep their meaning and its words", async (context) => {
  const { link } = await start(context, {
    answer: (stream) => {
      stream.respond({ ":status": 400 });
      stream.end('{"error":"hostname must be\\u001b[1m short","code":"invalid"}');
    },
  });
  await link.attached();
  await assert.rejects(link.configure(config), { code: "invalid", message: "hostname must be\ufffd[1m short" });
});

test("a file comes whole or fails: one that is reset in the middle is no end", async (context) => {
  const { link } = await start(context, {
    answer: (stream, path) => {
      stream.respond({ ":status": 200 });
      stream.write("half");
      if (path.endsWith("whole")) stream.end(" and half");
      else setImmediate(() => stream.destroy(new Error("what was read became shorter")));
    },
  });
  await link.attached();
  assert.equal(await text(await link.download("/v1/files?path=/whole")), "half and half");
  await assert.rejects(text(await link.download("/v1/files?path=/broken")), { code: "guest_unreachable" });
});

/** Resets a stream with CANCEL, and nothing before it: close() of Node's server would end it first. */
function cancel(stream: ServerHttp2Stream): void {
  const now = new AbortController();
  addAbortSignal(now.signal, stream);
  now.abort();
}

test("a stream that is reset, or loses its session, fails and does not end; one that the guest ends does end", async (context) => {
  const { link, guest } = await start(context, {
    answer: (stream, path) => {
      stream.respond({ ":status": 200 });
      if (path === "/v1/silent") return void stream.resume().once("data", () => cancel(stream));
      stream.write("half");
      if (path === "/v1/whole") stream.end(" and half");
      if (path === "/v1/reset") stream.resume().once("data", () => cancel(stream));
    },
  });
  await link.attached();
  assert.equal(await text(await link.open("/v1/whole")), "half and half");
  const broken = async (path: string, write: (stream: Duplex) => void) => {
    const stream = await link.open(path);
    const seen: string[] = [];
    stream.once("end", () => seen.push("end"));
    stream.once("error", (error: NodeJS.ErrnoException) => seen.push(error.code ?? error.message));
    const closed = new Promise<boolean>((resolve) => {
      stream.resume().once("close", () => resolve(true));
      AbortSignal.timeout(60_000).addEventListener("abort", () => resolve(false));
    });
    write(stream);
    assert.ok(await closed, `${path} does not close; seen: ${seen.join(", ")}`);
    assert.deepEqual(seen, ["guest_unreachable"], path);
  };
  for (const path of ["/v1/silent", "/v1/reset"]) {
    await broken(path, (stream) => stream.write("go on"));
    // The same after this end has said all that it had to say.
    await broken(path, (stream) => stream.end("go on"));
  }
  await broken("/v1/lost", () => guest.drop());
});

test("a file is sent as it comes, and one that breaks off is reset instead of ended", async (context) => {
  const outcome = Promise.withResolvers<number>();
  const { link } = await start(context, {
    answer: (stream, path) => {
      if (path.endsWith("broken")) {
        stream.resume().once("close", () => outcome.resolve(stream.rstCode));
        return;
      }
      void text(stream).then((got) => {
        stream.respond({ ":status": got === "content" ? 200 : 400 });
        stream.end('{"files":1}');
      });
    },
  });
  await link.attached();
  const type = "application/octet-stream";
  assert.equal(await link.upload("/v1/files?path=/whole", type, Readable.from(["con", "tent"])), '{"files":1}');
  const content = new PassThrough();
  content.write("half");
  const sent = assert.rejects(link.upload("/v1/files?path=/broken", type, content), { code: "guest_unreachable" });
  setImmediate(() => content.destroy(new Error("the client hung up")));
  await sent;
  assert.equal(await outcome.promise, constants.NGHTTP2_CANCEL);
});

test("an agent that is full or busy is exhausted, in its own words", async (context) => {
  for (const status of [507, 429]) {
    const { link } = await start(context, {
      answer: (stream) => {
        stream.respond({ ":status": status });
        stream.end('{"error":"no space is left","code":"no_space"}');
      },
    });
    await link.attached();
    await assert.rejects(link.upload("/v1/files?path=/x", "application/x-tar", new PassThrough()), {
      code: "exhausted",
      message: "no space is left",
    });
  }
});

test("a silent agent is noticed by its unanswered ping", async (context) => {
  const { link } = await start(context, { mute: true }, 20);
  const [reason] = await once(link, "detached");
  assert.equal((reason as { code: string }).code, "guest_unreachable");
});

test("an agent that pauses is told as silent, and as answering once it goes on; the session stays", async (context) => {
  const { guest, link } = await start(context);
  await link.attached();
  let detached = 0;
  link.on("detached", () => (detached += 1));
  const signal = AbortSignal.timeout(30_000);
  const silent = once(link, "silent", { signal });
  const pausedAtMs = performance.now();
  guest.pause(true);
  const [sinceMs] = (await silent) as [number];
  assert.ok(sinceMs >= pausedAtMs, "since the ping that is not answered");
  const answering = once(link, "answering", { signal });
  guest.pause(false);
  await answering;
  assert.equal(await link.configure(config), true);
  assert.deepEqual([detached, guest.lines.length], [0, 1]);
});

test("a guest that speaks out of turn gets no session, and the process lives on", async (context) => {
  const { guest, link } = await start(context, { early: "\0\0\0\u0004\0\0\0\0\0 and more" });
  while (guest.lines.length < 3) await once(guest.heard, "line");
  assert.notEqual(link.state, "attached");
});

test("a guest that speaks nonsense instead of HTTP/2 loses its session, and the process lives on", async (context) => {
  const { guest, link } = await start(context, { mute: true, nonsense: true });
  await link.attached();
  await once(link, "detached");
  while (guest.lines.length < 3) await once(guest.heard, "line");
});

test("a closed link rejects what waits for it", async (context) => {
  const { link } = await start(context, { deafFor: 1000 });
  const waiting = link.attached();
  const closed = assert.rejects(waiting, { code: "guest_unreachable" });
  await link.close();
  await closed;
  assert.equal(link.state, "closed");
  await assert.rejects(link.status(), { code: "guest_unreachable" });
});
