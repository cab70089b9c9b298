/** Requests that wait for their outcome: `?wait=`, the same for VMs and deployments. */
import { VolantError, waitMs } from "@volant/contract";
import type { Patience } from "../engine/use-cases.ts";

export interface Waiting {
  readonly query: { readonly wait?: string };
  readonly signal: AbortSignal;
}

/** What may be waited for, and shown as it is. */
export interface Waited<Thing> {
  get(name: string): Thing;
  /** @returns whether the outcome is known */
  wait(name: string, patience: Patience): Promise<boolean>;
}

export interface WaitedAnswer<Thing> {
  readonly body: Thing;
  readonly isAccepted?: boolean;
}

/** How long a request waits for its outcome; undefined where it does not say. @throws VolantError `invalid` */
export function patienceOf({ query, signal }: Waiting): Patience | undefined {
  const timeoutMs = waitMs(query.wait);
  return timeoutMs === undefined ? undefined : { timeoutMs, signal };
}

/** Begins something and waits for it, where the request says so. What is wrong with its `wait` is said before anything is begun. */
export async function begun<Thing extends { readonly name: string }>(
  things: Waited<Thing>,
  waiting: Waiting,
  begin: () => Promise<Thing>,
): Promise<WaitedAnswer<Thing>> {
  const patience = patienceOf(waiting);
  const thing = await begin();
  if (patience === undefined) return { body: thing };
  const isReached = await things.wait(thing.name, patience);
  return { body: things.get(thing.name), isAccepted: !isReached };
}

/** Has something end. Where the request said how long it waits, and that was too short, it is answered with the thing as it is. */
export async function ended<Thing, Answer>(
  things: Pick<Waited<Thing>, "get">,
  name: string,
  waiting: Waiting,
  work: (patience: Patience | undefined) => Promise<Answer>,
): Promise<Answer | WaitedAnswer<Thing>> {
  const patience = patienceOf(waiting);
  try {
    return await work(patience);
  } catch (error) {
    const isTooEarly = waiting.signal.aborted || (error instanceof VolantError && error.code === "timeout");
    if (patience === undefined || !isTooEarly) throw error;
    return { body: things.get(name), isAccepted: true };
  }
}
