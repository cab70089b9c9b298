/** Names that look like one that does not exist. Pure. */

/** Longer names are compared by their beginning. */
const MOST_COMPARED = 64;
const MOST_SUGGESTED = 3;

/** How many letters must be put in, left out, changed or swapped with their neighbour to make `b` of `a`: the optimal string alignment distance. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const isSame = a[row - 1] === b[column - 1];
      const changed = (above[column - 1] ?? 0) + (isSame ? 0 : 1);
      const isSwapped = a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      const swapped = isSwapped ? (before[column - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY;
      current[column] = Math.min(changed, swapped, (above[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1);
    }
    before = above;
    above = current;
  }
  return above[b.length] ?? 0;
}

/** Those names that are nearest to `wanted` and near enough to have been meant: at most three, all of them equally near. */
export function nearestNames(wanted: string, names: Iterable<string>): string[] {
  const asked = wanted.slice(0, MOST_COMPARED).toLowerCase();
  let limit = Math.max(1, Math.floor(asked.length / 3));
  let found: string[] = [];
  for (const name of new Set(names)) {
    const compared = name.slice(0, MOST_COMPARED).toLowerCase();
    if (name === wanted || Math.abs(compared.length - asked.length) > limit) continue;
    const distance = editDistance(asked, compared);
    if (distance > limit) continue;
    if (distance < limit) found = [];
    limit = distance;
    found.push(name);
  }
  return found.sort().slice(0, MOST_SUGGESTED);
}
