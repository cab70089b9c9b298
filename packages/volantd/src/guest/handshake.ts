/** A session's greeting. Wire format: docs/agent-protocol.md. Pure. */
import { VolantError } from "@volant/contract";
import { type AgentInfo, type AgentLine, encodeClock } from "./control-lines.ts";

/** A difference of clocks up to this is left alone. */
const CLOCK_TOLERANCE_MS = 1000;

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

  receive(message: AgentLine | undefined, now: Date): HandshakeStep {
    if (message === undefined || message.nonce !== this.nonce || this.#acknowledged) return { kind: "ignore" };
    if (message.type === "error") {
      const error = new VolantError("guest_unreachable", `the guest's agent refused the link: ${message.error}`);
      return { kind: "refused", error };
    }
    if (message.type !== "ack") return { kind: "ignore" };
    this.#acknowledged = true;
    const isOff = Math.abs(message.wallTime.getTime() - now.getTime()) > CLOCK_TOLERANCE_MS;
    return { kind: "begin", agent: message.agent, ...(isOff ? { clock: encodeClock(this.nonce, now) } : {}) };
  }
}
