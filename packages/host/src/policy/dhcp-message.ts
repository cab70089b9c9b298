/**
 * DHCP messages (RFC 2131, RFC 2132) out of Ethernet frames, as a host sees them go by. Every byte may be hostile: what is not whole is
 * `undefined`, never a guess. No I/O.
 */

/** What a message says, as far as a lease is concerned. */
export interface DhcpMessage {
  readonly kind: "question" | "answer";
  /** The DHCP message type (RFC 2132, 9.6): 1 discover, 2 offer, 3 request, 4 decline, 5 ack, 6 nak, 7 release, 8 inform. */
  readonly type: number;
  /** The client's number for this exchange, an unsigned 32-bit number. */
  readonly transaction: number;
  /** The client's hardware address (chaddr). */
  readonly mac: string;
  /** The address that an answer gives (yiaddr); undefined for 0.0.0.0. */
  readonly address: string | undefined;
  readonly leaseSeconds: number | undefined;
  readonly server: string | undefined;
}

const ETHERNET_BYTES = 14;
const UDP_BYTES = 8;
const SERVER_PORT = 67;
const CLIENT_PORT = 68;
/** Where options begin in a message, after the cookie 99.130.83.99. */
const COOKIE_AT = 236;
const COOKIE = 0x63825363;
const OPTION_PAD = 0;
const OPTION_LEASE_TIME = 51;
const OPTION_TYPE = 53;
const OPTION_SERVER = 54;
const OPTION_END = 255;

function address(bytes: Buffer): string | undefined {
  const text = bytes.join(".");
  return text === "0.0.0.0" ? undefined : text;
}

/** The UDP payload between the ports of DHCP in an unfragmented IPv4 frame, and which way it goes. */
function payloadOf(frame: Buffer): { readonly kind: DhcpMessage["kind"]; readonly payload: Buffer } | undefined {
  if (frame.length < ETHERNET_BYTES + 20 || frame.readUInt16BE(12) !== 0x0800) return undefined;
  const packet = frame.subarray(ETHERNET_BYTES);
  const headerBytes = (packet.readUInt8(0) & 15) * 4;
  const packetBytes = packet.readUInt16BE(2);
  const fragmented = (packet.readUInt16BE(6) & 0x3fff) !== 0;
  if (packet.readUInt8(0) >> 4 !== 4 || headerBytes < 20 || fragmented || packet.readUInt8(9) !== 17) return undefined;
  if (packetBytes > packet.length || packetBytes < headerBytes + UDP_BYTES) return undefined;
  const datagram = packet.subarray(headerBytes, packetBytes);
  const datagramBytes = datagram.readUInt16BE(4);
  if (datagramBytes < UDP_BYTES || datagramBytes > datagram.length) return undefined;
  const [from, to] = [datagram.readUInt16BE(0), datagram.readUInt16BE(2)];
  const payload = datagram.subarray(UDP_BYTES, datagramBytes);
  if (from === CLIENT_PORT && to === SERVER_PORT) return { kind: "question", payload };
  return from === SERVER_PORT && to === CLIENT_PORT ? { kind: "answer", payload } : undefined;
}

/** The options by number; of one that comes twice, the first. Undefined when one reaches past the end. */
function optionsOf(bytes: Buffer): ReadonlyMap<number, Buffer> | undefined {
  const options = new Map<number, Buffer>();
  for (let at = 0; at < bytes.length;) {
    const code = bytes.readUInt8(at);
    at += 1;
    if (code === OPTION_END) return options;
    if (code === OPTION_PAD) continue;
    if (at >= bytes.length) return undefined;
    const end = at + 1 + bytes.readUInt8(at);
    if (end > bytes.length) return undefined;
    if (!options.has(code)) options.set(code, bytes.subarray(at + 1, end));
    at = end;
  }
  return options;
}

/** The DHCP message in an Ethernet frame without VLAN tag, or undefined when there is none, or not a whole one. */
export function readDhcpFrame(frame: Buffer): DhcpMessage | undefined {
  const found = payloadOf(frame);
  if (found === undefined || found.payload.length < COOKIE_AT + 4) return undefined;
  const { kind, payload } = found;
  const [operation, hardware, hardwareBytes] = payload;
  if (operation !== (kind === "question" ? 1 : 2) || hardware !== 1 || hardwareBytes !== 6) return undefined;
  if (payload.readUInt32BE(COOKIE_AT) !== COOKIE) return undefined;
  const options = optionsOf(payload.subarray(COOKIE_AT + 4));
  const type = options?.get(OPTION_TYPE);
  if (options === undefined || type?.length !== 1) return undefined;
  const lease = options.get(OPTION_LEASE_TIME);
  const server = options.get(OPTION_SERVER);
  return {
    kind,
    type: type.readUInt8(0),
    transaction: payload.readUInt32BE(4),
    mac: payload.toString("hex", 28, 34).match(/../g)?.join(":") ?? "",
    address: address(payload.subarray(16, 20)),
    leaseSeconds: lease?.length === 4 ? lease.readUInt32BE(0) : undefined,
    server: server?.length === 4 ? address(server) : undefined,
  };
}
