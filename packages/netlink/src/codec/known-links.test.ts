import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import fc from "fast-check";
import { NetlinkError } from "../errors.ts";
import { AttributeCursor } from "./attributes.ts";
import { KnownLinks } from "./known-links.ts";
import { decodeLink, IFLA, type Link, LINK_BODY_BYTES, RTM_NEWLINK } from "./link.ts";
import { IFLA_INFO_SLAVE_DATA } from "./link-kinds.ts";

/** Links as a Linux 6.18 kernel told of them. */
const CAPTURED = (
  JSON.parse(readFileSync(new URL("captured-messages.json", import.meta.url), "utf8")) as {
    type: number;
    body: string;
  }[]
).flatMap(({ type, body }) => (type === RTM_NEWLINK ? [Buffer.from(body, "base64")] : []));

/** What a decoder makes of bytes, or that it refuses them. */
function outcome(decode: () => Link): Link | "refused" {
  try {
    return decode();
  } catch (error) {
    if (error instanceof NetlinkError && error.code === "EBADMSG") return "refused";
    throw error;
  }
}

test("whatever was in the list before, a link is what decoding its message gives", () => {
  const change = fc.tuple(fc.nat(2000), fc.nat(255));
  const message = fc.tuple(fc.constantFrom(...CAPTURED), fc.array(change, { maxLength: 3 }), fc.boolean());
  fc.assert(
    fc.property(fc.array(fc.array(message, { maxLength: 6 }), { maxLength: 4 }), (lists) => {
      let before = new KnownLinks();
      for (const list of lists) {
        const known = new KnownLinks();
        for (const [captured, changes, isCut] of list) {
          const body = Buffer.from(isCut ? captured.subarray(0, captured.length - 4) : captured);
          for (const [at, value] of changes) body[at % body.length] = value;
          assert.deepEqual(
            outcome(() => known.add(body, before)),
            outcome(() => decodeLink(body, false).link),
          );
          // What is kept of a message is not its bytes, which the next one is read into.
          body.fill(0xff);
        }
        before = known;
      }
    }),
    { numRuns: 1000 },
  );
});

/** Where counters and the timers of a bridge's port are (include/uapi/linux/if_link.h), by another way than the one that is tested: all attributes at any depth. */
function passing(body: Buffer): (readonly [number, number])[] {
  const found: (readonly [number, number])[] = [];
  const all = new AttributeCursor(body, LINK_BODY_BYTES, body.length);
  while (all.next()) {
    if (all.type === 7 || all.type === 23) found.push(all.range());
    if (all.type !== IFLA.linkInfo) continue;
    const info = all.nested();
    while (info.next()) {
      if (info.type !== IFLA_INFO_SLAVE_DATA) continue;
      const port = info.nested();
      while (port.next()) if (port.type >= 21 && port.type <= 23) found.push(port.range());
    }
  }
  return found;
}

test("a link whose counters and timers have moved on is the same object, and one of which anything else has changed is not", () => {
  const port = CAPTURED.find((body) => decodeLink(body).link.name === "t0" && !decodeLink(body).fromBridge);
  assert.ok(port);
  const places = passing(port);
  assert.equal(places.length, 5, "two of counters, three timers");
  const isPassing = (at: number): boolean => places.some(([start, end]) => at >= start && at < end);
  const before = new KnownLinks();
  const first = before.add(port, new KnownLinks());
  let others = 0;
  for (let at = LINK_BODY_BYTES; at < port.length; at += 1) {
    const body = Buffer.from(port);
    body[at] = (body[at] ?? 0) ^ 1;
    const link = outcome(() => new KnownLinks().add(body, before));
    assert.equal(link === first, isPassing(at), `byte ${at}`);
    if (link !== "refused" && !isPassing(at)) others += 1;
  }
  assert.ok(others > 500, "most of the other bytes are of a value, and no length");
  assert.equal(new KnownLinks().add(port, before), first);
});
