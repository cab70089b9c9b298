/**
 * Which lease a DHCP guest has, from the messages that go by its tap: an acknowledgement counts only when it answers this guest's own
 * question, by transaction and by hardware address. The guest's word alone gives it nothing. No I/O and no clock: whoever listens feeds it.
 */
import type { DhcpMessage } from "./dhcp-message.ts";

/** What a message changed. */
export type LeaseChange =
  | {
      readonly kind: "granted";
      readonly address: string;
      /** Counted from the acknowledgement. */
      readonly leaseSeconds: number;
      readonly server: string | undefined;
    }
  /** The server took it back, or the guest gave it up. */
  | { readonly kind: "lost" };

const REQUEST = 3;
const DECLINE = 4;
const ACK = 5;
const NAK = 6;
const RELEASE = 7;

/** The exchanges of one guest. */
export class LeaseWatch {
  readonly #mac: string;
  /** Only the latest: a client has one exchange at a time (RFC 2131, 4.4.1), and so a hostile one costs no memory. */
  #requested: number | undefined;
  #holds: boolean;

  /**
   * @param mac the entry's hardware address, in lower case
   * @param holds whether it has a lease already, from before this watch
   */
  constructor(mac: string, holds = false) {
    this.#mac = mac;
    this.#holds = holds;
  }

  /** Takes a message that came from the guest's tap, and that the rules let pass. */
  fromGuest(message: DhcpMessage): LeaseChange | undefined {
    if (message.kind !== "question" || message.mac !== this.#mac) return undefined;
    if (message.type === REQUEST) this.#requested = message.transaction;
    return message.type === RELEASE || message.type === DECLINE ? this.#lose() : undefined;
  }

  /** Takes a message on its way to the guest's tap. The rules keep guests from sending any such. */
  toGuest(message: DhcpMessage): LeaseChange | undefined {
    const { kind, type, mac, transaction, address, leaseSeconds, server } = message;
    if (kind !== "answer" || mac !== this.#mac || transaction !== this.#requested) return undefined;
    if (type === NAK) return this.#lose();
    if (type !== ACK || address === undefined || leaseSeconds === undefined) return undefined;
    this.#requested = undefined;
    this.#holds = true;
    return { kind: "granted", address, leaseSeconds, server };
  }

  #lose(): LeaseChange | undefined {
    this.#requested = undefined;
    if (!this.#holds) return undefined;
    this.#holds = false;
    return { kind: "lost" };
  }
}
