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
