import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import test from "node:test";
import { BODY_IDLE_MS } from "./api-config.ts";
import { guardBody, type BodyKind } from "./connection.ts";

/** Guards a body that never ends, and tells after how long the socket was closed; undefined when it never was. */
function closedAfter(kind: BodyKind, timers: { tick(ms: number): void }): number | undefined {
  let closedAt: number | undefined;
  let now = 0;
  let idle: ReturnType<typeof setTimeout> | undefined;
  const request = Object.assign(new EventEmitter(), {
    headers: { "transfer-encoding": "chunked" },
    complete: false,
    socket: { destroy: () => (closedAt ??= now) },
    setTimeout: (ms: number, cut: () => void) => void (idle = setTimeout(cut, ms)),
  });
  guardBody(request as unknown as IncomingMessage, new EventEmitter() as unknown as ServerResponse, kind);
  for (; now < 10 * BODY_IDLE_MS; now += BODY_IDLE_MS) timers.tick(BODY_IDLE_MS);
  clearTimeout(idle);
  return closedAt;
}

test("a document and a file have to keep coming, a stream may pause", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { timers } = context.mock;
  assert.equal(closedAfter("document", timers), 0);
  assert.equal(closedAfter("file", timers), 0);
  assert.equal(closedAfter("stream", timers), undefined);
});

/** How many timers wait once a document was answered: before its body was over, or after. */
function waitingAfterAnswer(bodyFirst: boolean, waiting: ReadonlySet<unknown>): number {
  const request = Object.assign(new EventEmitter(), {
    headers: { "content-length": "2" },
    complete: false,
    socket: {},
  });
  const response = new EventEmitter();
  guardBody(request as unknown as IncomingMessage, response as unknown as ServerResponse, "document");
  const end = () => {
    request.complete = true;
    request.emit("end");
  };
  if (bodyFirst) end();
  response.emit("finish");
  const left = waiting.size;
  if (!bodyFirst) end();
  assert.equal(waiting.size, 0, "whatever waited for the body does not outlast it");
  return left;
}

test("a body that is over is not waited for, which would keep its request in memory", (context) => {
  const waiting = new Set<unknown>();
  const { setTimeout: begin, clearTimeout: end } = globalThis;
  const follow = (work: () => void, ms: number) => {
    const timer = begin(work, ms);
    waiting.add(timer);
    return timer;
  };
  context.mock.method(globalThis, "setTimeout", follow as typeof setTimeout);
  context.mock.method(globalThis, "clearTimeout", (timer: NodeJS.Timeout) => {
    waiting.delete(timer);
    end(timer);
  });
  assert.equal(waitingAfterAnswer(true, waiting), 0);
  assert.equal(waitingAfterAnswer(false, waiting), 2, "for the document, and for what is left of it");
});
