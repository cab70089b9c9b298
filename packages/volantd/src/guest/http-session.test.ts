import assert from "node:assert/strict";
import type { ClientHttp2Session } from "node:http2";
import test from "node:test";
import { keepAlive } from "./http-session.ts";

/** A session whose answers to pings lie in the socket until they are read. */
class Session {
  readonly destroyed = false;
  readonly closed = false;
  #unread: (() => void)[] = [];

  ping(_payload: Buffer, answered: (error: Error | null) => void): boolean {
    this.#unread.push(() => answered(null));
    return true;
  }

  read(): void {
    for (const tell of this.#unread.splice(0)) tell();
  }
}

test("a guest that does not answer by the next heartbeat is silent; one whose answer could not be read because this process was held up is not", (t) => {
  const HEARTBEAT_MS = 5000;
  let nowMs = 0;
  t.mock.timers.enable({ apis: ["setInterval"] });
  t.mock.method(performance, "now", () => nowMs);
  const session = new Session();
  let silences = 0;
  const pass = (ms: number, lateMs = 0) => {
    nowMs += ms + lateMs;
    t.mock.timers.tick(ms);
  };
  const stop = keepAlive(session as unknown as ClientHttp2Session, HEARTBEAT_MS, () => (silences += 1));
  pass(HEARTBEAT_MS);
  session.read();
  pass(HEARTBEAT_MS);
  pass(HEARTBEAT_MS, 4000);
  assert.equal(silences, 0, "this process was held up");
  session.read();
  pass(HEARTBEAT_MS);
  assert.equal(silences, 0);
  pass(HEARTBEAT_MS);
  assert.equal(silences, 1, "nothing was held up this time");
  stop();
});
