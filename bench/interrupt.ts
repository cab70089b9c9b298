/** Hypervisors outlive whoever started them: what a measurement has made is taken away when it is interrupted, too. */

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** As shells say that a program was interrupted: 128 and SIGINT's number. */
const INTERRUPTED = 130;

/**
 * Has an interrupt take away what was made, and end the program then.
 *
 * @returns to be called when that is done without one
 */
export function onInterrupt(takeAway: () => Promise<unknown>): () => void {
  const interrupt = (): void => {
    const failed = (error: unknown): void => void process.stderr.write(`left behind: ${String(error)}\n`);
    void takeAway()
      .catch(failed)
      .finally(() => process.exit(INTERRUPTED));
  };
  for (const signal of SIGNALS) process.once(signal, interrupt);
  return () => {
    for (const signal of SIGNALS) process.off(signal, interrupt);
  };
}
