/**
 * A question whose answer serves all who ask within so many milliseconds. One that fails is asked again.
 *
 * @param monotonicMs a clock that nobody sets
 */
export function sharedFor<T>(
  freshMs: number,
  ask: () => Promise<T>,
  monotonicMs: () => number = () => performance.now(),
): () => Promise<T> {
  let last: { readonly askedMs: number; readonly answer: Promise<T> } | undefined;
  return async () => {
    const askedMs = monotonicMs();
    if (last === undefined || askedMs - last.askedMs > freshMs) last = { askedMs, answer: ask() };
    const { answer } = last;
    try {
      return await answer;
    } catch (error) {
      if (last?.answer === answer) last = undefined;
      throw error;
    }
  };
}
