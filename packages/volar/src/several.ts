import { SeveralFailures } from "./failure.ts";

/** How many requests a command that takes several names has under way at once. */
const AT_ONCE = 8;

export interface Outcome {
  readonly done: readonly string[];
  readonly failures: readonly unknown[];
}

/**
 * Does the same to each name, several at once; one failure does not keep the others from being done.
 *
 * @throws SeveralFailures when not one was done, or the error itself where there was one name
 */
export async function forEachName(
  names: readonly string[],
  work: (name: string) => Promise<unknown>,
): Promise<Outcome> {
  const waiting = [...new Set(names)];
  const order = [...waiting];
  const done = new Set<string>();
  const failures: unknown[] = [];
  async function worker(): Promise<void> {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      try {
        await work(name);
        done.add(name);
      } catch (error) {
        failures.push(error);
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (done.size === 0) throw failures.length === 1 ? failures[0] : new SeveralFailures(failures);
  return { done: order.filter((name) => done.has(name)), failures };
}
