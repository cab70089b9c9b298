import { isDeepStrictEqual } from "node:util";
import { Recent } from "./recent.ts";

/** Keys whose last value is known. */
const MOST = 64;

/** One object for all that say the same and are held for long. What is given to it is not changed any more. */
export class Alike<V> {
  readonly #known = new Recent<V>(MOST);

  /** The value that was given last under this key where the two are alike, or else this one. */
  of(key: string, value: V): V {
    const known = this.#known.get(key);
    if (known !== undefined && isDeepStrictEqual(known, value)) return known;
    this.#known.put(key, value);
    return value;
  }
}
