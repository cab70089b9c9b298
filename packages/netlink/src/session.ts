/** What the parts of a Netlink object share: its sockets, and the way from a link's name to its index. */
import { errnoError } from "./errors.ts";
import { libc } from "./transport/libc.ts";
import type { RequestSocket } from "./transport/socket.ts";

/** A link, by name or by index. Names can change hands; an index belongs to one link for its life. */
export type LinkRef = string | number;

export interface Session {
  /** For what is quick. */
  readonly socket: RequestSocket;
  /** For deleting links: 20 ms each that nothing else should wait for. */
  readonly slowSocket: RequestSocket;
}

/** The index of a link. ENODEV when there is none of that name. The kernel looks it up without a lock (SIOCGIFINDEX, netdevice(7)), so this never waits. */
export async function resolveIndex(link: LinkRef, operation: string, object?: string): Promise<number> {
  if (typeof link === "number") return link;
  const index = libc().nameToIndex(link);
  if (index < 0) throw errnoError(-index, operation, object ?? link, `there is no link ${link}`);
  return index;
}

/** How errors name a link: its name, or `#7` for an index. */
export function linkLabel(link: LinkRef): string {
  return typeof link === "number" ? `#${link}` : link;
}
