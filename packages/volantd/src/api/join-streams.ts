import { pipeline, type Duplex } from "node:stream";

/** Carries bytes both ways until each direction has ended; when either breaks, both streams are closed. Slow readers slow the writer down. */
export function joinStreams(a: Duplex, b: Duplex): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    pipeline(from, to, (error) => {
      if (error == null) return;
      a.destroy();
      b.destroy();
    });
  }
}
