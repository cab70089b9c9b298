/**
 * A DHCP server that answers nothing but nonsense, once per question with each kind that there is, so that a client that believed any of it would be seen to.
 * Writes `ready`, then a line per question that it has answered. Runs where its replies may go to 255.255.255.255.
 */
import { createSocket } from "node:dgram";

/** RFC 2131, 2: where the fields of a message lie, and what its options begin with. */
const [XID, YOUR_ADDRESS, HARDWARE_ADDRESS, COOKIE, OPTIONS] = [4, 16, 28, 236, 240];
const MAGIC = [0x63, 0x82, 0x53, 0x63];

/** RFC 2132: message type, server identifier, subnet mask, lease time. */
const OFFER = [53, 1, 2];
const ACK = [53, 1, 5];
const NAK = [53, 1, 6];
const SERVER = [54, 4, 10, 77, 0, 1];
const MASK = [1, 4, 255, 255, 255, 0];
const LEASE_TIME = [51, 4, 0, 0, 1, 0];
const GOOD_ADDRESS = [10, 77, 0, 66];

function reply(question: Buffer, address: readonly number[], options: readonly number[], cookie = MAGIC): Buffer {
  const header = Buffer.alloc(OPTIONS);
  header.set([2, 1, 6, 0]);
  question.copy(header, XID, XID, XID + 8);
  header.set(address, YOUR_ADDRESS);
  question.copy(header, HARDWARE_ADDRESS, HARDWARE_ADDRESS, HARDWARE_ADDRESS + 16);
  header.set(cookie, COOKIE);
  return Buffer.concat([header, Buffer.from(options)]);
}

/** The same, with some bytes of the header replaced. */
function forged(message: Buffer, at: number, bytes: readonly number[]): Buffer {
  const changed = Buffer.from(message);
  changed.set(bytes, at);
  return changed;
}

function nonsense(question: Buffer): Buffer[] {
  const offer = reply(question, GOOD_ADDRESS, [...OFFER, ...SERVER, ...MASK, ...LEASE_TIME, 255]);
  const bad = (address: readonly number[], ...options: readonly (readonly number[])[]) =>
    reply(question, address, [...options.flat(), 255]);
  return [
    Buffer.alloc(0),
    Buffer.from([2]),
    offer.subarray(0, OPTIONS - 1),
    Buffer.from(Array.from({ length: 300 }, (_, index) => (index * 131) % 251)),
    forged(offer, 0, [1]),
    forged(offer, 2, [16]),
    forged(offer, XID, [0xde, 0xad, 0xbe, 0xef]),
    forged(offer, HARDWARE_ADDRESS, [2, 9, 9, 9, 9, 9]),
    forged(offer, COOKIE, [0, 0, 0, 0]),
    bad(GOOD_ADDRESS, SERVER, MASK, LEASE_TIME),
    bad(GOOD_ADDRESS, [53, 1, 99], SERVER, MASK, LEASE_TIME),
    bad(GOOD_ADDRESS, OFFER, MASK, LEASE_TIME),
    bad(GOOD_ADDRESS, OFFER, SERVER, LEASE_TIME),
    bad(GOOD_ADDRESS, OFFER, SERVER, MASK),
    bad(GOOD_ADDRESS, OFFER, SERVER, MASK, [51, 4, 0, 0, 0, 0]),
    bad(GOOD_ADDRESS, OFFER, SERVER, [1, 4, 255, 0, 255, 0], LEASE_TIME),
    bad(GOOD_ADDRESS, OFFER, SERVER, [1, 4, 0, 0, 0, 0], LEASE_TIME),
    bad(GOOD_ADDRESS, OFFER, [54, 4, 127, 0, 0, 1], MASK, LEASE_TIME),
    reply(question, GOOD_ADDRESS, [...OFFER, ...SERVER, 51, 255, 1]),
    ...[
      [0, 0, 0, 0],
      [127, 0, 0, 1],
      [224, 0, 0, 1],
      [255, 255, 255, 255],
      [10, 77, 0, 0],
      [10, 77, 0, 255],
    ].map((address) => bad(address, OFFER, SERVER, MASK, LEASE_TIME)),
    // Right in themselves, but nobody has asked for this yet.
    bad(GOOD_ADDRESS, ACK, SERVER, MASK, LEASE_TIME),
    bad([0, 0, 0, 0], NAK, SERVER),
  ];
}

const socket = createSocket({ type: "udp4", reuseAddr: true });
socket.on("message", (question) => {
  if (question.length < OPTIONS) return;
  const answers = nonsense(question);
  let left = answers.length;
  for (const answer of answers) {
    socket.send(answer, 68, "255.255.255.255", (error) => {
      if (error !== null) process.stdout.write(`not sent: ${error.message}\n`);
      left -= 1;
      if (left === 0) process.stdout.write(`answered with ${answers.length} kinds of nonsense\n`);
    });
  }
});
socket.bind(67, "0.0.0.0", () => {
  socket.setBroadcast(true);
  process.stdout.write("ready\n");
});
