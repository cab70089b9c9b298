/** Node's own HTTP clients, loaded when one is needed, and without what volar's start would pay for. */
import type { request } from "node:http";

/**
 * What sends requests to URLs of this protocol, `http:` or `https:`.
 *
 * An import of node:http would read all of its exports. WebSocket is one of them, and to read it loads the whole of fetch(): some 40 ms.
 */
export function requestFunction(protocol: string): typeof request {
  if (protocol === "https:") return process.getBuiltinModule("node:https").request;
  return process.getBuiltinModule("node:http").request;
}
