/** What of the events that a scenario is to tell is missing, or too much. Pure. */

const CHANGE = /^\w+_UPDATED /;

function countOf(text: string, among: readonly string[]): number {
  return among.filter((other) => other === text).length;
}

/**
 * A line for each event, `<type> <name>`, that was not told as often as it should have been. How many changes are told depends on what is seen in between: those that
 * are expected are told once at least, and others may be told.
 */
export function untold(expected: readonly string[], told: readonly string[]): string[] {
  return [...new Set([...expected, ...told])].flatMap((text) => {
    const [least, count] = [countOf(text, expected), countOf(text, told)];
    const isRight = CHANGE.test(text) ? count >= Math.min(1, least) : count === least;
    return isRight ? [] : [`${text}: ${count} times instead of ${least}`];
  });
}
