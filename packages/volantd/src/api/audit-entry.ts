/** What the audit log says of a request. Pure. */
import type { IncomingMessage } from "node:http";
import type { Scope } from "@volant/contract";
import type { Client, Origin } from "./gates.ts";

/** One line of the audit log, without its time. */
export interface AuditEntry {
  /** A key's name; `VOLANT_API_KEY`; `root` by the Unix socket; `anyone` where no key is asked for; absent for who was refused before. */
  readonly who?: string;
  /** The client's address, or `unix`. */
  readonly from: string;
  readonly method: string;
  /** Without its query. */
  readonly path: string;
  readonly status: number;
  readonly request_id: string;
}

/** A request, once it is known what became of it. */
export interface Recorded {
  readonly request: IncomingMessage;
  readonly requestId: string;
  readonly origin: Origin;
  readonly client: Client | undefined;
  /** What the route asks for. */
  readonly scope: Scope;
  readonly status: number;
}

export type Recorder = (recorded: Recorded) => void;

const LONGEST_PATH = 512;

/** A URL's path, which is short enough for a log; what follows it is nobody's business. */
export function pathOf(url: string | undefined): string {
  const path = (url ?? "").replace(/[?#].*$/s, "");
  return path.length > LONGEST_PATH ? `${path.slice(0, LONGEST_PATH)}…` : path;
}

/** A part of a path that is a key, of those that volantd makes, does not belong into a log. */
const KEY_LIKE = /volant_[A-Za-z0-9_-]{20,}/g;

/** Statuses of those who were not let in, or asked too often. */
const REFUSED: readonly number[] = [401, 403, 429];

/** Whether a request was refused for who it came from. */
export function isRefusal({ status }: Pick<Recorded, "status">): boolean {
  return REFUSED.includes(status);
}

/**
 * The line for a request; undefined for one that is none of the log's: whoever read what there is to read, and was allowed to.
 *
 * @param isKey whether a text is a key
 */
export function auditEntry(recorded: Recorded, isKey: (text: string) => boolean): AuditEntry | undefined {
  const { request, requestId, origin, client, scope, status } = recorded;
  const isRead = scope === "read" && ["GET", "HEAD", "OPTIONS"].includes(request.method ?? "");
  if (isRead && !isRefusal(recorded)) return undefined;
  const path = pathOf(request.url)
    .replaceAll(KEY_LIKE, "[key]")
    .split("/")
    .map((part) => (part.length >= 8 && isKey(decoded(part)) ? "[key]" : part))
    .join("/");
  return {
    ...(client === undefined ? {} : { who: client.name }),
    from: origin.address,
    method: request.method ?? "",
    path,
    status,
    request_id: requestId,
  };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
