/** Which bridge a tap of the managed network joins: the managed one, or a further one where that is full. Pure. */
import { MAX_FURTHER_NUMBER, trunkPorts } from "@volant/host";

/** The managed bridge's place among its further ones, which count from 1. */
export const MANAGED = 0;

export interface PlaceLimits {
  /** How many ports a bridge has. */
  readonly bridgePorts: number;
  /** How many further bridges there are at most, and ports of the managed one that are kept for their trunks. */
  readonly trunks: number;
}

export function placeLimits(bridgePorts: number): PlaceLimits {
  return { bridgePorts, trunks: trunkPorts(bridgePorts) };
}

export interface SeenPlaces {
  /** Ports by place, trunks not counted. A further bridge that is there and empty has 0. */
  readonly ports: ReadonlyMap<number, number>;
  /** Places whose names are somebody else's. */
  readonly taken: Pick<ReadonlySet<number>, "has">;
}

/** Ports of that place that are for taps. */
export function capacity(place: number, { bridgePorts, trunks }: PlaceLimits): number {
  return place === MANAGED ? bridgePorts - trunks : bridgePorts - 1;
}

/** The lowest place that has a port left, be it of a bridge that is still to be made; undefined where all is full. */
export function choosePlace({ ports, taken }: SeenPlaces, limits: PlaceLimits): number | undefined {
  const further = [...ports.keys()].filter((place) => place !== MANAGED).length;
  for (let place = MANAGED; place <= MAX_FURTHER_NUMBER; place += 1) {
    if (taken.has(place)) continue;
    const isThere = place === MANAGED || ports.has(place);
    if (!isThere && further >= limits.trunks) continue;
    if ((ports.get(place) ?? 0) < capacity(place, limits)) return place;
  }
  return undefined;
}
