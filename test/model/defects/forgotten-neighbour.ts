/** For NODE_OPTIONS=--import: a volantd with a planted defect. It takes neighbour entries for removed that it has not removed. */
import { BridgeManager } from "../../../packages/volantd/src/network/bridge-manager.ts";

const { observe, setNeighbour } = BridgeManager.prototype;
const forgotten = new Set<number>();

BridgeManager.prototype.deleteNeighbour = async function (address) {
  forgotten.add(address);
};

BridgeManager.prototype.setNeighbour = async function (neighbour) {
  forgotten.delete(neighbour.address);
  await setNeighbour.call(this, neighbour);
};

BridgeManager.prototype.observe = async function () {
  const view = await observe.call(this);
  return { ...view, neighbours: view.neighbours.filter(({ address }) => !forgotten.has(address)) };
};
