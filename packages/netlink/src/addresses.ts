import {
  type Address,
  type AddressFlag,
  broadcastAddress,
  decodeAddress,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
  writeAddress,
  writeAddressRequest,
} from "./codec/address.ts";
import type { IpFamily } from "./codec/ip-text.ts";
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from "./codec/message.ts";
import type { Scope } from "./codec/scope.ts";
import { type LinkRef, resolveIndex, type Session } from "./session.ts";
import { checkIp, checkPrefixLength } from "./validate.ts";

export interface AddressListOptions {
  readonly link?: LinkRef;
  readonly family?: IpFamily;
}

export interface AddressAdd {
  readonly link: LinkRef;
  readonly address: string;
  readonly prefixLength: number;
  readonly peer?: string;
  /** An IPv4 broadcast address, or `auto` for the network's last one. None by default, as with ip-address(8). */
  readonly broadcast?: string;
  readonly label?: string;
  readonly scope?: Scope;
  readonly flags?: readonly AddressFlag[];
  readonly metric?: number;
  readonly validSeconds?: number;
  /** At most `validSeconds`, and by default as long. */
  readonly preferredSeconds?: number;
  /** Changes the address when it is there already, instead of failing with EEXIST. */
  readonly replace?: boolean;
}

export type AddressKey = Pick<AddressAdd, "link" | "address" | "prefixLength" | "peer">;

/** IP addresses of links. */
export class Addresses {
  readonly #session: Session;

  constructor(session: Session) {
    this.#session = session;
  }

  /** Every address, or those of one link or family. */
  async list(options: AddressListOptions = {}): Promise<Address[]> {
    const operation = "list addresses";
    const index = options.link === undefined ? 0 : await resolveIndex(options.link, operation);
    const { family } = options;
    const addresses = await this.#session.socket.dump(
      { operation, type: RTM_GETADDR, write: (writer) => writeAddressRequest(writer, family, index) },
      (message) => (message.type === RTM_NEWADDR ? decodeAddress(message.body) : undefined),
    );
    return addresses.filter(
      (address) => (index === 0 || address.link === index) && (family === undefined || address.family === family),
    );
  }

  /** Gives a link an address. EEXIST when it has it. */
  async add(address: AddressAdd): Promise<void> {
    const operation = "add address";
    const object = this.#check(operation, address);
    const { replace = false, broadcast: wanted, validSeconds, preferredSeconds = validSeconds, ...rest } = address;
    const broadcast = wanted === "auto" ? broadcastAddress(address.address, address.prefixLength) : wanted;
    if (broadcast !== undefined) checkIp(operation, broadcast);
    const link = await resolveIndex(address.link, operation, object);
    await this.#session.socket.change({
      operation,
      object,
      type: RTM_NEWADDR,
      flags: NLM_F_CREATE | (replace ? NLM_F_REPLACE : NLM_F_EXCL),
      write: (writer) => writeAddress(writer, { ...rest, validSeconds, preferredSeconds, broadcast, link }),
    });
  }

  /** Takes an address from a link. EADDRNOTAVAIL when it does not have it. */
  async delete(address: AddressKey): Promise<void> {
    const operation = "delete address";
    const object = this.#check(operation, address);
    const link = await resolveIndex(address.link, operation, object);
    await this.#session.socket.change({
      operation,
      object,
      type: RTM_DELADDR,
      write: (writer) => writeAddress(writer, { ...address, link }),
    });
  }

  #check(operation: string, { address, prefixLength, peer }: AddressKey): string {
    checkPrefixLength(operation, address, checkIp(operation, address), prefixLength);
    if (peer !== undefined) checkIp(operation, peer);
    return `${address}/${prefixLength}`;
  }
}
