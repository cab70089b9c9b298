import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { type DhcpMessage, readDhcpFrame } from "./dhcp-message.ts";
import { LeaseWatch } from "./lease-watch.ts";

const MAC = "02:00:00:00:00:07";

interface Wire {
  readonly from: number;
  readonly to: number;
  readonly operation: number;
  readonly transaction: number;
  readonly address?: readonly number[];
  readonly options: readonly number[];
}

/** A frame put together by hand from RFC 791, 768 and 2131. */
function frame({ from, to, operation, transaction, address = [0, 0, 0, 0], options }: Wire): Buffer {
  const message = Buffer.alloc(240 + options.length);
  message.set([operation, 1, 6, 0]);
  message.writeUInt32BE(transaction, 4);
  message.set(address, 16);
  message.set(Buffer.from(MAC.replaceAll(":", ""), "hex"), 28);
  message.set([99, 130, 83, 99, ...options], 236);
  const bytes = Buffer.alloc(42);
  bytes.writeUInt16BE(0x0800, 12);
  bytes.set([0x45, 0], 14);
  bytes.writeUInt16BE(28 + message.length, 16);
  bytes.set([64, 17], 22);
  bytes.writeUInt16BE(from, 34);
  bytes.writeUInt16BE(to, 36);
  bytes.writeUInt16BE(8 + message.length, 38);
  return Buffer.concat([bytes, message]);
}

const REQUEST: Wire = { from: 68, to: 67, operation: 1, transaction: 9, options: [53, 1, 3, 255] };
const ACK: Wire = {
  from: 67,
  to: 68,
  operation: 2,
  transaction: 9,
  address: [10, 0, 0, 7],
  options: [0, 53, 1, 5, 54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 14, 16, 255, 7],
};

function read(wire: Wire): DhcpMessage {
  const message = readDhcpFrame(frame(wire));
  assert.ok(message !== undefined);
  return message;
}

const GRANTED = { kind: "granted", address: "10.0.0.7", leaseSeconds: 3600, server: "10.0.0.1" };

test("an acknowledgement is read as RFC 2131 lays it out", () => {
  assert.deepEqual(read(ACK), {
    kind: "answer",
    type: 5,
    transaction: 9,
    mac: MAC,
    address: "10.0.0.7",
    leaseSeconds: 3600,
    server: "10.0.0.1",
  });
});

test("a lease is learned from the acknowledgement of the guest's own request, once", () => {
  const watch = new LeaseWatch(MAC);
  assert.equal(watch.toGuest(read(ACK)), undefined, "nobody asked");
  assert.equal(watch.fromGuest(read(REQUEST)), undefined);
  assert.equal(watch.toGuest(read({ ...ACK, transaction: 8 })), undefined, "another transaction");
  assert.equal(watch.toGuest({ ...read(ACK), mac: "02:00:00:00:00:08" }), undefined, "another guest's");
  assert.equal(watch.fromGuest(read(ACK)), undefined, "the guest's own word");
  assert.equal(watch.toGuest(read({ ...ACK, options: [53, 1, 2, 51, 4, 0, 0, 0, 9, 255] })), undefined, "an offer");
  assert.deepEqual(watch.toGuest(read(ACK)), GRANTED);
  assert.equal(watch.toGuest(read(ACK)), undefined, "the same again");
});

test("a lease is lost by the server's refusal and by the guest's release", () => {
  for (const lose of [
    (watch: LeaseWatch) => {
      watch.fromGuest(read(REQUEST));
      return watch.toGuest(read({ ...ACK, options: [53, 1, 6, 255] }));
    },
    (watch: LeaseWatch) => watch.fromGuest(read({ ...REQUEST, options: [53, 1, 7, 255] })),
  ]) {
    const watch = new LeaseWatch(MAC);
    assert.equal(lose(watch), undefined, "there was none");
    watch.fromGuest(read(REQUEST));
    assert.deepEqual(watch.toGuest(read(ACK)), GRANTED);
    assert.deepEqual(lose(watch), { kind: "lost" });
  }
});

test("of a frame that is cut short or altered nothing is read that is not there, and nothing fails", () => {
  const whole = frame(ACK);
  for (let length = 0; length < whole.length; length += 1) {
    assert.equal(readDhcpFrame(whole.subarray(0, length)), undefined, `${length} bytes`);
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => void readDhcpFrame(Buffer.from(bytes))));
  const position = fc.integer({ min: 0, max: whole.length - 1 });
  fc.assert(
    fc.property(fc.array(fc.tuple(position, fc.integer({ min: 0, max: 255 })), { maxLength: 8 }), (changes) => {
      const bytes = Buffer.from(whole);
      for (const [at, value] of changes) bytes[at] = value;
      readDhcpFrame(bytes);
    }),
  );
});
