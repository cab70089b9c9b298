/** Calling scenes in a page from a test. */
import type { Page } from "playwright-core";
import { PATIENCE_MS, within } from "../patience.ts";
import type { Scenes } from "./scenes.ts";

type Given<Name extends keyof Scenes> = Awaited<ReturnType<Scenes[Name]>>;

/** Calls a scene and gives what it gave; an error in the page is the test's. */
export function play<Name extends keyof Scenes>(
  page: Page,
  name: Name,
  ...args: Parameters<Scenes[Name]>
): Promise<Given<Name>> {
  const played = page.evaluate(
    ([scene, given]) => {
      const { scenes } = globalThis as unknown as { scenes: Record<string, (...all: unknown[]) => unknown> };
      return scenes[scene]?.(...given);
    },
    [name, args] as [string, unknown[]],
  );
  return within(played as Promise<Given<Name>>, `the scene ${name}`);
}

/**
 * Calls a scene again and again until what it gives is so.
 *
 * @throws Error with what it gave last, when that is not within `limitMs`
 */
export async function playUntil<Name extends keyof Scenes>(
  page: Page,
  isSo: (given: Given<Name>) => boolean,
  name: Name,
  ...args: Parameters<Scenes[Name]>
): Promise<Given<Name>> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const given = await play(page, name, ...args);
    if (isSo(given)) return given;
    if (performance.now() > deadline) {
      throw new Error(
        `the scene ${name}: not so within ${PATIENCE_MS} ms; it gave ${JSON.stringify(given).slice(-2000)}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
