import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { MIN_WINDOW_BYTES, parseTaken, ReceiveWindow, SendWindow } from "./byte-window.ts";

test("two ends that keep to the window never exceed it, and never stop for good", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 3 * MIN_WINDOW_BYTES }), { minLength: 1, maxLength: 30 }),
      (sizes) => {
        const [sender, receiver] = [new SendWindow(MIN_WINDOW_BYTES), new ReceiveWindow(MIN_WINDOW_BYTES)];
        let held = 0;
        const drain = () => {
          const told = receiver.take(held);
          held = 0;
          if (told !== undefined) assert.ok(sender.take(parseTaken(told) ?? -1));
        };
        for (const size of sizes) {
          for (let rest = size; rest > 0;) {
            if (sender.room === 0) drain();
            const piece = Math.min(rest, sender.room);
            assert.ok(piece > 0, "there is room once all was taken");
            sender.send(piece);
            assert.ok(receiver.receive(piece));
            held += piece;
            assert.ok(held <= MIN_WINDOW_BYTES);
            rest -= piece;
          }
        }
      },
    ),
  );
});

test("what exceeds the window, and a count that can't be, is seen", () => {
  const receiver = new ReceiveWindow(MIN_WINDOW_BYTES);
  assert.ok(receiver.receive(MIN_WINDOW_BYTES));
  assert.equal(receiver.receive(1), false);
  const sender = new SendWindow(MIN_WINDOW_BYTES);
  sender.send(100);
  assert.equal(sender.take(101), false);
  assert.ok(sender.take(100));
  assert.equal(sender.take(99), false);
  for (const text of ["", "1", "null", "{}", '{"taken":"1"}', '{"taken":1.5}', '{"taken":1e300}']) {
    assert.equal(parseTaken(text), undefined, text);
  }
  assert.equal(parseTaken('{"taken":7}'), 7);
});
