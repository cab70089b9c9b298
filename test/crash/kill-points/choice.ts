/** Which of the points that were seen volantd is killed at. Pure. */
import type { SeenPoint } from "./point-line.ts";

/** What is passed while nothing outside changes. */
export interface Moment {
  readonly points: readonly string[];
}

/** A write of the store's, once it is done. */
const RECORDED = /^volantd\/src\/store\/.*\(after\)(?: #\d+)?$/;

/** A point's name without the count of how often it was passed before. */
export function bareName(point: string): string {
  return point.replace(/ #\d+$/, "");
}

export function momentsOf(seen: readonly SeenPoint[]): Moment[] {
  const moments = new Map<number, string[]>();
  for (const [point, moment] of seen) moments.set(moment, [...(moments.get(moment) ?? []), point]);
  return [...moments.values()].map((points) => ({ points }));
}

/** What was written last before a point, a statement each: what its COMMIT has made true. */
function writesBefore({ points }: Moment): string {
  return [...writesOf(points.filter((point) => point.endsWith("(before)") || / \(before\) #\d+$/.test(point)))].join(
    "; ",
  );
}

/**
 * Moments with a point at which nothing was killed in another scenario, and those that a write of the store's begins: between the two lies what is new about
 * a scenario. What it writes again in the same way, such as for another VM, is chosen once.
 *
 * @param covered bare names; those of all moments are added
 */
export function chooseMoments(moments: readonly Moment[], covered: Set<string>): Moment[] {
  const written = new Set<string>();
  return moments.filter((moment, index) => {
    const { points } = moment;
    const isNew = points.some((point) => !covered.has(bareName(point)));
    for (const point of points) covered.add(bareName(point));
    if (!RECORDED.test(points[0] ?? "")) return isNew;
    const write = `${bareName(points[0] ?? "")} ${writesBefore(moments[index - 1] ?? { points: [] })}`;
    const isRepeated = written.has(write);
    written.add(write);
    return isNew || !isRepeated;
  });
}

/** A moment's points, the one that is met most surely first: one that was passed before is counted, and another run may count differently. */
export function bestFirst({ points }: Moment): string[] {
  const isFirst = (point: string): boolean => bareName(point) === point;
  return [...points.filter(isFirst), ...points.filter((point) => !isFirst(point))];
}

/** Statements that write, as they stand in the points' names, each once. */
export function writesOf(points: Iterable<string>): Set<string> {
  return new Set([...points].flatMap((point) => /\{((?:INSERT|UPDATE|DELETE) .*)\} \(/.exec(point)?.[1] ?? []));
}
