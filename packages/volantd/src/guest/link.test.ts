import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { constants, performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
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

interface FromHost {
  readonly type: string;
  readonly nonce: string;
  readonly wall_time: string;
  readonly beat_ms: number;
  readonly id: number;
  readonly method: string;
  readonly path: string;
  readonly body?: { readonly nonce: string };
}

type Reply = (status: number, body: object) => void;

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
  /** Answers a hello with a refusal. */
  refuses?: boolean;
  /** Says nothing by itself. */
  mute?: boolean;
  /** Answers the sync line with random bytes. */
  nonsense?: boolean;
  /** A question on the control port; false: answer it as always. */
  ask?: (question: FromHost, reply: Reply) => boolean | void;
  /** A request over HTTP/2. */
  answer?: (stream: ServerHttp2Stream, path: string) => void;
};

/** Plays hypervisor and agent on two Unix sockets. */
class FakeGuest {
  readonly directory = mkdtempSync(join(tmpdir(), "guest-link-"));
  readonly behaviour: Behaviour;
  readonly lines: FromHost[] = [];
  readonly heard = new EventEmitter<{ line: [] }>();
  /** Connections of the stream port so far, and of them those that speak HTTP/2 now. */
  streams = 0;
  readonly sessions = new Set<ServerHttp2Session>();
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  #stream: Socket | undefined;
  #control: Socket | undefined;
  #nonce = "";

  constructor(behaviour: Behaviour) {
    this.behaviour = behaviour;
  }

  get hellos(): FromHost[] {
    return this.lines.filter(({ type }) => type === "hello");
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
      this.streams += 1;
      this.#stream = socket;
    });
    await serve("control", (socket) => {
      const reader = new LineReader(65_536);
      this.#control = socket;
      socket.on("data", (bytes: Buffer) => {
        for (const line of reader.feed(bytes)) this.#receive(socket, JSON.parse(line) as FromHost);
      });
    });
  }

  #receive(control: Socket, line: FromHost): void {
    this.lines.push(line);
    this.heard.emit("line");
    if (line.type === "ask") return this.#answer(control, line);
    if (line.type !== "hello" || this.lines.length <= (this.behaviour.deafFor ?? 0)) return;
    this.#nonce = line.nonce;
    if (this.behaviour.refuses === true) {
      return this.say({ type: "error", error: "it speaks protocol 1", code: "protocol_unsupported" });
    }
    const agent = { version: "0.1.0", protocol: 2, kernel: "6.1", boot_id: "b" };
    const wall_time = this.behaviour.wallTime ?? new Date().toISOString();
    const ack = JSON.stringify({ type: "ack", nonce: line.nonce, wall_time, agent });
    control.write(`\nnoise\n${ack.slice(0, 20)}\n${ack.replace(line.nonce, "0".repeat(32))}\n${ack}\n`);
    const beats = setInterval(() => {
      if (this.behaviour.mute !== true && !this.isPaused) this.say({ type: "beat" });
    }, line.beat_ms);
    control.once("close", () => clearInterval(beats));
  }

  /** A line on the control port. */
  say(line: object): void {
    this.#control?.write(`\n${JSON.stringify({ nonce: this.#nonce, ...line })}\n`);
  }

  /** Bytes on the control port, and how many of them wait to be read. */
  write(bytes: Buffer): void {
    this.#control?.write(bytes);
  }

  get unread(): number {
    return this.#control?.writableLength ?? 0;
  }

  /** What its hostname is, as a status. */
  tellStatus(hostname: string): void {
    const [first] = JSON.parse(
      readFileSync(new URL("../../../../kestrel/golden/status.json", import.meta.url), "utf8"),
    ) as object[];
    this.say({ type: "status", status: { ...first, hostname } });
  }

  #answer(control: Socket, question: FromHost): void {
    const reply: Reply = (status, body) =>
      void control.write(
        `\n${JSON.stringify({ type: "answer", nonce: question.nonce, id: question.id, status, body })}\n`,
      );
    if (question.path === "/v1/stream") {
      reply(200, {});
      return this.#begin(question.body?.nonce ?? "");
    }
    if (this.behaviour.ask !== undefined && this.behaviour.ask(question, reply) !== false) return;
    reply(200, { changed: true });
  }

  #begin(nonce: string): void {
    const socket = this.#stream;
    assert.ok(socket);
    const scanner = new SyncScanner(nonce);
    const onData = (bytes: Buffer) => {
      const used = scanner.feed(bytes);
      if (used !== undefined && this.behaviour.nonsense === true) socket.write(randomBytes(65_536));
      if (used === undefined || this.behaviour.nonsense === true) return;
      socket.off("data", onData);
      socket.pause();
      socket.unshift(bytes.subarray(used));
      const http = performServerHandshake(socket);
      this.sessions.add(http);
      http.once("close", () => this.sessions.delete(http));
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

  isPaused = false;

  /** Reads and says nothing while it pauses. */
  pause(isPaused: boolean): void {
    this.isPaused = isPaused;
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

async function start(context: TestContext, behaviour: Behaviour = {}, heartbeatMs = 5000, streamIdleMs = 30_000) {
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
    streamIdleMs,
  });
  context.after(async () => {
    await link.close();
    await guest.close();
  });
  return { guest, link };
}

const config = { configVersion: "1" };

test("a guest that nobody talks to has no HTTP/2; a stream begins behind stale bytes, more of them share it, and it ends once it is idle", async (context) => {
  const stale = `half a frame${syncLine("f".repeat(32))}volant-stream 0`;
  const { guest, link } = await start(context, { stale }, 5000, 1);
  assert.equal((await link.attached()).kernel, "6.1");
  assert.equal(link.state, "attached");
  assert.equal(await link.configure(config), true);
  assert.equal(guest.streams, 0);
  const texts = await Promise.all(Array.from({ length: 5 }, async () => text(await link.open("/v1/exec"))));
  assert.equal(new Set(texts).size, 1);
  assert.equal(guest.streams, 1);
  for (const session of guest.sessions) await once(session, "close");
  assert.equal(await text(await link.open("/v1/exec")), texts[0]);
  assert.equal(guest.streams, 2);
  const nonces = guest.lines.filter(({ path }) => path === "/v1/stream").map(({ body }) => body?.nonce);
  assert.equal(new Set([...nonces, ...guest.hellos.map(({ nonce }) => nonce)]).size, 3);
});

test("a configuration that is too long for a line goes over HTTP/2", async (context) => {
  const { guest, link } = await start(context);
  await link.attached();
  assert.equal(await link.configure({ ...config, env: { LONG: "x".repeat(70_000) } }), true);
  assert.deepEqual([guest.streams, guest.lines.some(({ path }) => path === "/v1/config")], [1, false]);
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
    await assert.rejects(link.open("/v1/exec"), { code: "guest_unreachable" });
  }
  await link.attached();
  assert.equal(new Set(guest.hellos.map((line) => line.nonce)).size, 6);
});

test("an agent whose line on the stream port gets lost is greeted anew for the next stream, and the session stays", async (context) => {
  const { guest, link } = await start(context, { lostLines: 2 }, 250);
  await link.attached();
  for (let lost = 0; lost < 2; lost += 1) {
    await assert.rejects(link.open("/v1/exec"), { code: "guest_unreachable", message: /silent on its stream port/ });
  }
  assert.match(await text(await link.open("/v1/exec")), /exec/);
  assert.deepEqual([guest.hellos.length, guest.streams], [1, 3]);
});

test("a stream that nobody waits for any more is given up, and the next one comes", async (context) => {
  const { link } = await start(context);
  await link.attached();
  const abort = new AbortController();
  const waiting = link.open("/v1/exec", abort.signal);
  abort.abort(new Error("enough"));
  await assert.rejects(waiting, { message: "enough" });
  assert.match(await text(await link.open("/v1/exec")), /exec/);
});

test("questions under way fail when the link breaks, and a followed log does not just end", async (context) => {
  const { guest, link } = await start(context, {
    ask: ({ path }, reply) => {
      if (!path.startsWith("/v1/logs?after=0")) return;
      const line = { seq: 1, stream: "stdout", line: "x", timestamp: "2026-01-02T03:04:05.678Z" };
      reply(200, { entries: [line, "noise"] });
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

test("a log is read to its end, answer by answer, and one whose agent says nothing new is not asked for again and again", async (context) => {
  const { guest, link } = await start(context, {
    ask: ({ path }, reply) => {
      const after = Number(/after=(\d+)/.exec(path)?.[1]);
      const line = { stream: "stdout", line: "x", timestamp: "2026-01-02T03:04:05.678Z" };
      if (path.endsWith("&wait")) reply(200, { entries: [] });
      else if (after === 0) reply(200, { entries: [{ gap: { from: 1, to: 9 } }, { ...line, seq: 10 }] });
      else reply(200, { entries: after < 13 ? [{ ...line, seq: after + 1 }] : [] });
    },
  });
  await link.attached();
  const seen: number[] = [];
  for await (const entry of link.logs()) seen.push(entry.kind === "gap" ? entry.to : entry.seq);
  assert.deepEqual(seen, [9, 10, 11, 12, 13]);
  const asked = guest.lines.length;
  const next = link.logs({ follow: true })[Symbol.asyncIterator]().next();
  await assert.rejects(next, { code: "guest_unreachable" });
  assert.equal(guest.lines.length, asked + 1);
});

test("a log that grows faster than it is read has an end all the same for whoever does not follow it", async (context) => {
  const { link } = await start(context, {
    ask: ({ path }, reply) => {
      const seq = Number(/after=(\d+)/.exec(path)?.[1]) + 1;
      const line = "x".repeat(8000);
      reply(200, { entries: [{ seq, stream: "stdout", line, timestamp: "2026-01-02T03:04:05.678Z" }] });
    },
  });
  await link.attached();
  let lines = 0;
  for await (const entry of link.logs()) if (entry.kind === "line") lines += 1;
  assert.ok(lines >= 32 && lines < 40, `${lines}`);
});

test("the guest's last status is told and stays for whoever asks, until the session ends; of those in one piece the last is told, and what is no status is left out", async (context) => {
  const { guest, link } = await start(context);
  await link.attached();
  const told: string[] = [];
  link.on("status", ({ hostname }) => told.push(hostname));
  for (let index = 1; index <= 50; index += 1) guest.tellStatus(`host-${index}`);
  guest.say({ type: "status", status: { hostname: 5 } });
  guest.tellStatus("last");
  while (told.at(-1) !== "last") assert.equal(await link.configure(config), true);
  assert.ok(told.length < 51, `${told.length} were told`);
  assert.equal(link.lastStatus?.hostname, "last");
  const gone = once(link, "detached");
  guest.drop();
  await gone;
  assert.equal(link.lastStatus, undefined);
});

test("a hello is repeated with the same nonce until the agent answers", async (context) => {
  const { guest, link } = await start(context, { deafFor: 1 });
  await link.attached();
  assert.equal(guest.lines.length, 2);
  assert.equal(guest.lines[0]?.nonce, guest.lines[1]?.nonce);
});

test("why an agent can't serve this host is told each time it says so, and is over once it can", async (context) => {
  const { guest, link } = await start(context, { refuses: true });
  const [sentence] = (await once(link, "refused")) as [string];
  assert.equal(sentence, "the guest's agent refused the link: it speaks protocol 1");
  await once(link, "refused");
  guest.behaviour.refuses = false;
  await link.attached();
});

test("a guest whose clock is wrong is told the time after its ack", async (context) => {
  const { guest, link } = await start(context, { wallTime: "2001-01-01T00:00:00.000Z" });
  await link.attached();
  await link.configure(config);
  assert.deepEqual(
    guest.lines.map((line) => line.type),
    ["hello", "clock", "ask"],
  );
});

test("an answer without end is cut off", async (context) => {
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
  const upload = link.upload("/v1/files?path=/x", "application/x-tar", Readable.from(["x"]));
  await assert.rejects(upload, /endless answer/);
});

test("a guest that floods its control port is read bit by bit, and what others say is heard between", async (context) => {
  const { guest, link } = await start(context);
  const { link: other } = await start(context);
  await Promise.all([link.attached(), other.attached()]);
  const flood = Buffer.alloc(384 * 1024, "{\n");
  guest.write(flood);
  const asked = Array.from({ length: 20 }, () => other.configure(config));
  assert.deepEqual(await Promise.all(asked), Array(20).fill(true));
  assert.ok(guest.unread > 0, "the flood is still under way");
  assert.equal(await link.configure(config), true);
});

test("the agent's refusals keep their meaning and its words", async (context) => {
  const { link } = await start(context, {
    ask: (_question, reply) => reply(400, { error: "hostname must be\u001b[1m short", code: "invalid" }),
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

test("an agent that says nothing any more loses its session", async (context) => {
  const { link } = await start(context, { mute: true }, 200);
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
  assert.ok(sinceMs >= pausedAtMs - 5000 && sinceMs < performance.now(), "since it was heard last");
  const answering = once(link, "answering", { signal });
  guest.pause(false);
  await answering;
  assert.equal(await link.configure(config), true);
  assert.deepEqual([detached, guest.hellos.length], [0, 1]);
});

test("a guest that speaks out of turn gets no stream, nor one that speaks nonsense instead of HTTP/2; the session and the process live on", async (context) => {
  for (const behaviour of [{ early: "\0\0\0\u0004\0\0\0\0\0 and more" }, { nonsense: true }]) {
    const { guest, link } = await start(context, behaviour);
    await link.attached();
    for (let round = 0; round < 3; round += 1) {
      await assert.rejects(link.open("/v1/exec"), { code: "guest_unreachable" });
    }
    assert.equal(await link.configure(config), true);
    assert.deepEqual([guest.hellos.length, guest.streams], [1, 3]);
  }
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
