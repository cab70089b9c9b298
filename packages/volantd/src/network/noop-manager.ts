import { readFile } from "node:fs/promises";
import { VolantError } from "@volant/contract";
import { parseLinkTraffic } from "../model/process-usage.ts";
import { isLinkName, MAX_LINK_NAME, noopTapName } from "../model/tap-name.ts";
import type { NetworkManager, NetworkView } from "./network-manager.ts";

/** Names in the kernel's table of links. */
export function parseLinkNames(table: string): ReadonlySet<string> {
  return new Set(parseLinkTraffic(table).keys());
}

/** This network namespace's links, without netlink, which is not loaded here; undefined where there is no such table, as off Linux. */
async function readLinkNames(): Promise<ReadonlySet<string> | undefined> {
  try {
    return parseLinkNames(await readFile("/proc/self/net/dev", "utf8"));
  } catch {
    return undefined;
  }
}

/** For hosts whose network Volant does not manage: it names the tap that a person has made, and touches nothing. */
export class NoopManager implements NetworkManager {
  readonly manages = false;
  readonly #linkNames: () => Promise<ReadonlySet<string> | undefined>;

  /** @param linkNames the host's links; undefined where they can't be told, which is no error */
  constructor(linkNames: () => Promise<ReadonlySet<string> | undefined> = readLinkNames) {
    this.#linkNames = linkNames;
  }

  tapNames(vmName: string): Iterable<string> {
    return [noopTapName(vmName)];
  }

  async checkReady(tap: string): Promise<void> {
    if (!isLinkName(tap)) {
      throw new VolantError(
        "invalid",
        `the tap name ${tap} is longer than the ${MAX_LINK_NAME} bytes of a link's name`,
        { hint: "name the tap that you made with network.tap" },
      );
    }
    const names = await this.#linkNames();
    if (names === undefined || names.has(tap)) return;
    throw new VolantError("not_ready", `there is no tap ${tap}, and volantd makes none on this host`, {
      hint: `make it (ip tuntap add dev ${tap} mode tap), or name the one that you made with network.tap`,
    });
  }

  async linkWithMac(): Promise<undefined> {
    return undefined;
  }

  async observe(): Promise<NetworkView> {
    return { network: { managed: false }, otherBridges: new Map(), taps: [], foreignNames: new Map(), neighbours: [] };
  }

  async bringBridgeUp(): Promise<void> {}
  async restoreHost(): Promise<readonly string[]> {
    return [];
  }
  async createTap(): Promise<void> {}
  async repairTap(): Promise<void> {}
  async deleteTap(): Promise<void> {}
  async putPolicy(): Promise<void> {}
  async removePolicy(): Promise<void> {}
  followLease(): void {}
  lease(): undefined {}
  async countDropped(): Promise<void> {}
  dropped(): undefined {}
  async setNeighbour(): Promise<void> {}
  async deleteNeighbour(): Promise<void> {}
  async watch(): Promise<void> {}
  async close(): Promise<void> {}
}
