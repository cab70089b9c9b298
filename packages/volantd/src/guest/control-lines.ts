/** Control lines between host and agent. Wire format: docs/agent-protocol.md. Pure. */
import { asCount, asMessage, asObject, asText, asTime, type JsonObject, parseObject } from "./untrusted.ts";

export const PROTOCOL = 2;
/** Longest line that an agent takes, in bytes, its end included. */
export const MAX_LINE_TO_AGENT_BYTES = 64 * 1024;
/** Longest line that an agent sends, its end not included: 16 KiB and a line of a log, of which each byte can take six in JSON. */
export const MAX_LINE_TO_HOST_BYTES = 256 * 1024;
/** Numbers of statuses (RFC 9110, section 15). */
const MIN_STATUS = 100;
const MAX_STATUS = 599;
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
  | { readonly type: "error"; readonly nonce: string; readonly code: string; readonly error: string }
  /** `status` is HTTP's; the body is as it came. */
  | {
      readonly type: "answer";
      readonly nonce: string;
      readonly id: number;
      readonly status: number;
      readonly body: JsonObject;
    }
  /** The guest's state, as it came. */
  | { readonly type: "status"; readonly nonce: string; readonly status: JsonObject }
  | { readonly type: "beat"; readonly nonce: string };

/** A control line ready to be sent. The leading newline ends whatever a dead session left unfinished. */
function lineOf(json: string): string {
  return `\n${json}\n`;
}

function encode(message: object): string {
  return lineOf(JSON.stringify(message));
}

export interface Hello {
  readonly nonce: string;
  readonly generation: number;
  readonly identity: GuestIdentity;
  /** How often the agent is to say that it lives. */
  readonly beatMs: number;
}

export function encodeHello(hello: Hello, now: Date): string {
  const { nonce, generation, identity, beatMs } = hello;
  const { vmId, name, hostname, mac, address } = identity;
  return encode({
    type: "hello",
    protocol: PROTOCOL,
    nonce,
    generation,
    wall_time: now.toISOString(),
    beat_ms: beatMs,
    identity: { vm_id: vmId, name, hostname, mac, address },
  });
}

export function encodeClock(nonce: string, now: Date): string {
  return encode({ type: "clock", nonce, wall_time: now.toISOString() });
}

/** @param body JSON, as text; undefined for none */
export function encodeAsk(nonce: string, id: number, method: string, path: string, body: string | undefined): string {
  const head = JSON.stringify({ type: "ask", nonce, id, method, path });
  return lineOf(body === undefined ? head : `${head.slice(0, -1)},"body":${body}}`);
}

/** A beat's line, to know it by: parsing one after another of those would be most of what a quiet guest costs. */
export function beatLine(nonce: string): string {
  return `{"type":"beat","nonce":"${nonce}"}`;
}

/** Parses a line from the agent; undefined for all that is not a well-formed message of a known type. */
export function parseAgentLine(line: string): AgentLine | undefined {
  const message = parseObject(line);
  const nonce = asText(message?.["nonce"], 32);
  if (message === undefined || nonce === undefined || !/^[0-9a-f]{32}$/.test(nonce)) return undefined;
  switch (message["type"]) {
    case "error": {
      const code = asText(message["code"], 64);
      const error = asMessage(message["error"], 1024);
      return code === undefined || error === undefined ? undefined : { type: "error", nonce, code, error };
    }
    case "beat":
      return { type: "beat", nonce };
    case "status": {
      const status = asObject(message["status"]);
      return status && { type: "status", nonce, status };
    }
    case "answer": {
      const id = asCount(message["id"]);
      const status = asCount(message["status"], MAX_STATUS);
      const body = asObject(message["body"]);
      if (id === undefined || status === undefined || status < MIN_STATUS || body === undefined) return undefined;
      return { type: "answer", nonce, id, status, body };
    }
    case "ack":
      return parseAck(message, nonce);
    default:
      return undefined;
  }
}

function parseAck(message: JsonObject, nonce: string): AgentLine | undefined {
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
