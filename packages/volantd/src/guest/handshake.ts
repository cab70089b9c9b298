/** Control lines between host and agent, and what the host does about them. Wire format: docs/agent-protocol.md. Pure. */
import { VolantError } from "@volant/contract";
import { asCount, asMessage, asObject, asText, asTime, parseObject } from "./untrusted.ts";

export const PROTOCOL = 1;
/** Longest control line in bytes, its end not included. */
export const MAX_CONTROL_LINE_BYTES = 64 * 1024;
/** A difference of clocks up to this is left alone. */
const CLOCK_TOLERANCE_MS = 1000;
/** The last one stands for any port (vsock(7)). */
const MAX_VSOCK_PORT = 0xffff_fffe;

/** Who a guest is: what the host says and the guest takes on. */
export interface GuestIdentity {
  readonly vmId: number;
  readonly name: string;
  readonly hostname: string;
  readonly mac?: string | undefined;
  readonly address?: string | undefined;
}

/** What the agent says of itself. */
export interface AgentInfo {
  readonly version: string;
  readonly protocol: number;
  /** `uname -r` of the guest. */
  readonly kernel: string;
  /** Changes with every boot, and not with a restore. */
  readonly bootId: string;
  /** Where it listens on virtio-vsock; absent where the guest has no such device. */
  readonly vsockPort?: number;
}

export type AgentLine =
  | { readonly type: "ack"; readonly nonce: string; readonly wallTime: Date; readonly agent: AgentInfo }
  | { readonly type: "error"; readonly nonce: string; readonly code: string; readonly error: string };

/** A control line ready to be sent. The leading newline ends whatever a dead session left unfinished. */
function encode(message: object): string {
  return `\n${JSON.stringify(message)}\n`;
}

export function encodeHello(nonce: string, generation: number, identity: GuestIdentity, now: Date): string {
  const { vmId, name, hostname, mac, address } = identity;
  return encode({
    type: "hello",
    protocol: PROTOCOL,
    nonce,
    generation,
    wall_time: now.toISOString(),
    identity: { vm_id: vmId, name, hostname, mac, address },
  });
}

export function encodeClock(nonce: string, now: Date): string {
  return encode({ type: "clock", nonce, wall_time: now.toISOString() });
}

/** Parses a line from the agent; undefined for all that is not a well-formed message of a known type. */
export function parseAgentLine(line: string): AgentLine | undefined {
  const message = parseObject(line);
  const nonce = asText(message?.["nonce"], 32);
  if (message === undefined || nonce === undefined || !/^[0-9a-f]{32}$/.test(nonce)) return undefined;
  if (message["type"] === "error") {
    const code = asText(message["code"], 64);
    const error = asMessage(message["error"], 1024);
    return code === undefined || error === undefined ? undefined : { type: "error", nonce, code, error };
  }
  if (message["type"] !== "ack") return undefined;
  const wallTime = asTime(message["wall_time"]);
  const agent = asObject(message["agent"]);
  const version = asText(agent?.["version"], 64);
  const protocol = asCount(agent?.["protocol"]);
  const kernel = asText(agent?.["kernel"], 128);
  const bootId = asText(agent?.["boot_id"], 64);
  const vsockPort = asCount(agent?.["vsock_port"], MAX_VSOCK_PORT);
  if (!wallTime || version === undefined || protocol === undefined || kernel === undefined || bootId === undefined) {
    return undefined;
  }
  const listens = vsockPort === undefined ? {} : { vsockPort };
  return { type: "ack", nonce, wallTime, agent: { version, protocol, kernel, bootId, ...listens } };
}

export type HandshakeStep =
  /** Not for us: an old nonce, noise, or an ack repeated. */
  | { readonly kind: "ignore" }
  /** The session may begin; `clock` is to be sent first where the guest's clock is off. */
  | { readonly kind: "begin"; readonly agent: AgentInfo; readonly clock?: string }
  /** The agent is there and can't serve us. */
  | { readonly kind: "refused"; readonly error: VolantError };

/** One session's greeting: from hello to ack. */
export class Handshake {
  readonly nonce: string;
  #acknowledged = false;

  constructor(nonce: string) {
    this.nonce = nonce;
  }

  get acknowledged(): boolean {
    return this.#acknowledged;
  }

  receive(line: string, now: Date): HandshakeStep {
    const message = parseAgentLine(line);
    if (message === undefined || message.nonce !== this.nonce || this.#acknowledged) return { kind: "ignore" };
    if (message.type === "error") {
      const error = new VolantError("guest_unreachable", `the guest's agent refused the link: ${message.error}`);
      return { kind: "refused", error };
    }
    this.#acknowledged = true;
    const isOff = Math.abs(message.wallTime.getTime() - now.getTime()) > CLOCK_TOLERANCE_MS;
    return { kind: "begin", agent: message.agent, ...(isOff ? { clock: encodeClock(this.nonce, now) } : {}) };
  }
}
