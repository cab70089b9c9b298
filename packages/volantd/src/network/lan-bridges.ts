/** Which bridges, besides the managed one, VMs may join: the operator's choice alone, for on a LAN a guest meets machines that are not ours. */
import { VolantError } from "@volant/contract";
import type { SetupRecord } from "@volant/host";
import type { Link } from "@volant/netlink";

export interface MadeLan {
  readonly bridge: string;
  readonly card: string;
}

/**
 * Whether the bridge is gone or down, and putting it back can do something about it: not while its card is missing or is somebody else's port,
 * nor where its name is taken. Otherwise every look at the host would try in vain.
 */
export function canPutBack({ bridge, card }: MadeLan, links: readonly Link[]): boolean {
  const found = links.find(({ name }) => name === bridge);
  const port = links.find(({ name }) => name === card);
  if (port === undefined || (port.master !== undefined && port.master !== found?.index)) return false;
  if (found === undefined) return true;
  return found.kind === "bridge" && found.alias?.startsWith("volant:lan:") === true && !found.flags.up;
}

export interface LanBridgesOptions {
  /** VOLANT_LAN_BRIDGES. */
  readonly named: readonly string[];
  /** The record of the host's set-up as it is now. */
  readonly readRecord: () => Promise<SetupRecord | undefined>;
  /** Another one means another record. Reading it costs a millisecond, which every look at the host would pay. */
  readonly recordStamp: () => Promise<string | undefined>;
}

export class LanBridges {
  readonly #options: LanBridgesOptions;
  #known: { readonly stamp: string | undefined; readonly made: readonly MadeLan[] } | undefined;

  constructor(options: LanBridgesOptions) {
    this.#options = options;
  }

  /** @throws VolantError `invalid` with what to run, for a bridge that the operator has not allowed */
  async check(bridge: string): Promise<void> {
    const { named, readRecord } = this.#options;
    if (named.includes(bridge)) return;
    const record = await readRecord();
    if (record?.lans.some((lan) => lan.bridge === bridge) === true) return;
    throw new VolantError("invalid", `VMs may not join the bridge ${bridge}: it is not set up as a LAN bridge`, {
      hint: `run: volar setup --lan-bridge ${bridge} (or volar setup --lan <card>), or name it in VOLANT_LAN_BRIDGES`,
    });
  }

  /** Those that set-up made, and puts back when they are gone. None where the record can't be read: who checks the host tells of that. */
  async made(): Promise<readonly MadeLan[]> {
    // Before the record: one that is written in between is read again next time.
    const stamp = await this.#options.recordStamp();
    if (this.#known === undefined || this.#known.stamp !== stamp) this.#known = { stamp, made: await this.#readMade() };
    return this.#known.made;
  }

  async #readMade(): Promise<readonly MadeLan[]> {
    try {
      const record = await this.#options.readRecord();
      if (record?.state !== "applied") return [];
      return record.lans.flatMap(({ bridge, card }) => (card === null ? [] : [{ bridge, card: card.name }]));
    } catch (error) {
      if (error instanceof VolantError) return [];
      throw error;
    }
  }
}
