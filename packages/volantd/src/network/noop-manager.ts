import { VolantError } from "@volant/contract";
import { isLinkName, MAX_LINK_NAME, noopTapName } from "../model/tap-name.ts";
import type { NetworkManager, NetworkView } from "./network-manager.ts";

/** For hosts whose network Volant does not manage: it names the tap that a person has made, and touches nothing. */
export class NoopManager implements NetworkManager {
  tapNames(vmName: string): Iterable<string> {
    return [noopTapName(vmName)];
  }

  async checkReady(tap: string): Promise<void> {
    if (isLinkName(tap)) return;
    throw new VolantError("invalid", `the tap name ${tap} is longer than the ${MAX_LINK_NAME} bytes of a link's name`, {
      hint: "name the tap that you made with network.tap",
    });
  }

  async observe(): Promise<NetworkView> {
    return { network: { managed: false }, otherBridges: new Map(), taps: [], foreignNames: new Set(), neighbours: [] };
  }

  async bringBridgeUp(): Promise<void> {}
  async restoreHost(): Promise<readonly string[]> {
    return [];
  }
  async createTap(): Promise<void> {}
  async repairTap(): Promise<void> {}
  async deleteTap(): Promise<void> {}
  async setNeighbour(): Promise<void> {}
  async deleteNeighbour(): Promise<void> {}
  async watch(): Promise<void> {}
  async close(): Promise<void> {}
}
