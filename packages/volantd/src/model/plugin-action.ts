/** From a plugin's action and what a caller gives to the request that its workload gets. Pure. */
import { VolantError, type Manifest } from "@volant/contract";

const DEFAULT_TIMEOUT_MS = 30_000;
/** Methods whose requests have no content with a meaning (RFC 9110 section 9.3): what is given becomes the query. */
const WITHOUT_CONTENT: readonly string[] = ["GET", "HEAD", "DELETE"];
/** Methods that ask for something else than an answer (RFC 9110 sections 9.3.6 and 9.3.8). */
const NO_ACTION: readonly string[] = ["CONNECT", "TRACE"];

export interface ActionRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** JSON. */
  readonly body: string | undefined;
  readonly timeoutMs: number;
}

/** @throws VolantError `not_found`, naming the actions that there are */
function findAction(manifest: Manifest, name: string): NonNullable<Manifest["actions"]>[string] {
  const actions = manifest.actions ?? {};
  const found = Object.hasOwn(actions, name) ? actions[name] : undefined;
  if (found !== undefined) return found;
  const known = Object.keys(actions);
  throw new VolantError("not_found", `plugin "${manifest.name}" has no action "${name}"`, {
    hint: known.length === 0 ? "its manifest names none" : `it has: ${known.toSorted().join(", ")}`,
  });
}

function addToQuery(query: URLSearchParams, where: string, input: unknown): void {
  if (input === undefined || input === null) return;
  if (typeof input !== "object" || Array.isArray(input)) {
    throw new VolantError("invalid", `${where}: its request has no body, so what it is given must be a JSON object`);
  }
  for (const [name, value] of Object.entries(input)) {
    for (const item of Array.isArray(value) ? (value as unknown[]) : [value]) {
      if (item === null) continue;
      if (typeof item === "object") {
        throw new VolantError("invalid", `${where}: field ${JSON.stringify(name)} has no place in a query`);
      }
      query.append(name, String(item));
    }
  }
}

/**
 * What the workload is asked. The input is sent as JSON, or as the query where the action's method has no content.
 *
 * @throws VolantError `not_found` when the plugin has no such action, `invalid` when the input does not fit it
 */
export function actionRequest(manifest: Manifest, name: string, input: unknown): ActionRequest {
  const { method, path, timeout_ms: timeoutMs = DEFAULT_TIMEOUT_MS } = findAction(manifest, name);
  const where = `action "${name}" of plugin "${manifest.name}"`;
  if (NO_ACTION.includes(method)) throw new VolantError("invalid", `${where}: ${method} is no method of an action`);
  // Put behind a host of its own first, so that no path can name another one; what has no place in a URL is encoded.
  const url = new URL(`http://workload${path}`);
  const bare = WITHOUT_CONTENT.includes(method);
  if (bare) addToQuery(url.searchParams, where, input);
  const body = bare || input === undefined ? undefined : JSON.stringify(input);
  return { method, path: `${url.pathname}${url.search}`, body, timeoutMs };
}
