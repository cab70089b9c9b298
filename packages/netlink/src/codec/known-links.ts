/**
 * Links as a list showed them, for the next list: a host's thousand links are mostly the same in it, and a link that is the same need be neither decoded nor made anew.
 */
import { AttributeCursor } from "./attributes.ts";
import { decodeLink, IFLA, type Link, linkIndexOf, LINK_BODY_BYTES } from "./link.ts";
import { IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND } from "./link-kinds.ts";

/**
 * IFLA_BRPORT_*: what is left of a port's timers, in USER_HZ. That of its way to forwarding runs for `forward_delay` (15 s where nobody has set it) after a port has joined, spanning tree or not.
 */
const PORT_TIMERS: ReadonlySet<number> = new Set([21, 22, 23]);

interface KnownLink {
  readonly body: Buffer;
  /** Where in the body what passes without a change of the link begins and ends, by turns: counters and timers. */
  readonly passing: readonly number[];
  readonly link: Link;
}

export class KnownLinks {
  readonly #links = new Map<number, KnownLink>();

  /**
   * Takes the body of an RTM_NEWLINK in.
   *
   * @param before where the link may be known from
   * @returns what decodeLink gives without counters: the same object as before where the link is the same
   * @throws NetlinkError EBADMSG
   */
  add(body: Buffer, before: KnownLinks): Link {
    let known = before.#links.get(linkIndexOf(body));
    if (known === undefined || !isSame(known, body)) {
      known = { body: ownBytes(body), passing: passingParts(body), link: decodeLink(body, false).link };
    }
    this.#links.set(known.link.index, known);
    return known.link;
  }
}

/** Attributes are where they were as long as all before them is the same, so their lengths are compared, too. */
function isSame({ body: known, passing }: KnownLink, body: Buffer): boolean {
  if (known.length !== body.length) return false;
  let start = 0;
  for (let at = 0; at < passing.length; at += 2) {
    const end = passing[at] ?? 0;
    if (body.compare(known, start, end, start, end) !== 0) return false;
    start = passing[at + 1] ?? 0;
  }
  return body.compare(known, start, known.length, start, known.length) === 0;
}

function passingParts(body: Buffer): number[] {
  const passing: number[] = [];
  const attributes = new AttributeCursor(body, LINK_BODY_BYTES, body.length);
  while (attributes.next()) {
    if (attributes.type === IFLA.stats || attributes.type === IFLA.stats64) passing.push(...attributes.range());
    else if (attributes.type === IFLA.linkInfo) passing.push(...timers(attributes.nested()));
  }
  return passing;
}

function timers(linkInfo: AttributeCursor): number[] {
  const passing: number[] = [];
  let portKind = "";
  while (linkInfo.next()) {
    if (linkInfo.type === IFLA_INFO_SLAVE_KIND) portKind = linkInfo.string();
    if (linkInfo.type !== IFLA_INFO_SLAVE_DATA || portKind !== "bridge") continue;
    const port = linkInfo.nested();
    while (port.next()) if (PORT_TIMERS.has(port.type)) passing.push(...port.range());
  }
  return passing;
}

/** A copy that is kept for long: one from Buffer's pool would keep 64 KiB with it. */
function ownBytes(bytes: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(own);
  return own;
}
