/**
 * Who has which port: what the last look at the host showed, and what has been promised since, so that taps that are made at the same time don't all
 * take a bridge's last port. No I/O.
 */
import { choosePlace, MANAGED, type PlaceLimits } from "./tap-places.ts";

interface Promised {
  readonly place: number;
  readonly tap: string;
  /** The number of looks that had begun when it was kept, or given up. */
  settledAt: number | undefined;
}

/** A port that is somebody's until it is settled. */
export interface Place {
  readonly place: number;
  /** The tap has the port now, which the next look shows; or it never came to that. */
  settle(): void;
}

export class TapPlacing {
  readonly #limits: PlaceLimits;
  #looks = 0;
  #lastSeen = 0;
  /** Names of ports by place, without trunks. */
  #ports: ReadonlyMap<number, ReadonlySet<string>> = new Map();
  #taken: (place: number) => boolean = () => false;
  #promised: Promised[] = [];
  /** Places where the kernel refused one since the last look, though we counted one left. */
  readonly #full = new Set<number>();

  constructor(limits: PlaceLimits) {
    this.#limits = limits;
  }

  /** A look at the host begins. Give what it returns to {@link seen}. */
  begin(): number {
    this.#looks += 1;
    return this.#looks;
  }

  /** @param taken whether a place's name is somebody else's */
  seen(look: number, ports: ReadonlyMap<number, ReadonlySet<string>>, taken: (place: number) => boolean): void {
    // One that began later has told more already.
    if (look < this.#lastSeen) return;
    this.#lastSeen = look;
    this.#ports = ports;
    this.#taken = taken;
    this.#full.clear();
    // What was settled before the look began is in it, if anywhere.
    this.#promised = this.#promised.filter(({ settledAt }) => settledAt === undefined || settledAt >= look);
  }

  /** Where the last look showed the tap; undefined where it is none of these bridges' port. */
  of(tap: string): number | undefined {
    for (const [place, ports] of this.#ports) if (ports.has(tap)) return place;
    return undefined;
  }

  /** Promises the tap a port of the lowest place that has one; undefined where all is full. */
  take(tap: string): Place | undefined {
    const counts = new Map<number, number>([...this.#ports].map(([place, { size }]) => [place, size]));
    for (const promise of this.#promised) {
      if (this.#ports.get(promise.place)?.has(promise.tap) === true) continue;
      counts.set(promise.place, (counts.get(promise.place) ?? 0) + 1);
    }
    const taken = { has: (place: number) => this.#full.has(place) || (place !== MANAGED && this.#taken(place)) };
    const place = choosePlace({ ports: counts, taken }, this.#limits);
    if (place === undefined) return undefined;
    const promise: Promised = { place, tap, settledAt: undefined };
    this.#promised.push(promise);
    return { place, settle: () => (promise.settledAt = this.#looks) };
  }

  /** The kernel has no port left there, whoever has them. */
  refuse(place: number): void {
    this.#full.add(place);
  }

  /** Whether the place is empty, as far as is known, and nobody was promised a port of it. */
  isUnused(place: number): boolean {
    return (this.#ports.get(place)?.size ?? 0) === 0 && !this.#promised.some((promise) => promise.place === place);
  }
}
