import { type Address, decodeAddress, RTM_DELADDR, RTM_NEWADDR } from "./codec/address.ts";
import { decodeLink, type Link, RTM_DELLINK, RTM_NEWLINK } from "./codec/link.ts";
import type { NetlinkMessage } from "./codec/message.ts";
import { decodeNeighbour, type Neighbour, RTM_DELNEIGH, RTM_NEWNEIGH } from "./codec/neighbour.ts";
import { decodeRoute, type Route, RTM_DELROUTE, RTM_NEWROUTE } from "./codec/route.ts";
import { invalidArgument } from "./errors.ts";
import { Listener } from "./transport/listener.ts";

/** RTNLGRP_* (include/uapi/linux/rtnetlink.h): the multicast groups behind a topic. */
const GROUPS = { link: [1], neighbour: [3], address: [5, 9], route: [7, 11] } as const;

export type Topic = keyof typeof GROUPS;

/**
 * `set` is new or changed, the object being what it is now; `delete` is gone, the object being what it last was.
 * `bridge-port` is a bridge about one of its ports: `delete` means that the link was detached, not that it is gone.
 * The kernel keeps quiet about some changes of a link that is down (its alias, its group).
 * `overrun` means that events were lost, because they came faster than they were taken: read the tables again.
 */
export type NetlinkEvent =
  | { readonly type: "link" | "bridge-port"; readonly action: "set" | "delete"; readonly link: Link }
  | { readonly type: "address"; readonly action: "set" | "delete"; readonly address: Address }
  | { readonly type: "route"; readonly action: "set" | "delete"; readonly route: Route }
  | { readonly type: "neighbour"; readonly action: "set" | "delete"; readonly neighbour: Neighbour }
  | { readonly type: "overrun" };

export interface SubscribeOptions {
  /** Ends the subscription at once; the iterator is then done, it does not throw. */
  readonly signal?: AbortSignal;
  /** What the kernel may queue for us, in bytes. The default is 4 MiB. */
  readonly receiveBufferBytes?: number;
  /** Whether links carry their counters. The default is true. */
  readonly stats?: boolean;
}

const DEFAULT_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024;

/** Opens a subscription. It is in force when this returns. */
export function subscribe(topics: readonly Topic[], options: SubscribeOptions): AsyncIterableIterator<NetlinkEvent> {
  const groups = [...new Set(topics)].flatMap((topic) => {
    if (!Object.hasOwn(GROUPS, topic)) throw invalidArgument("subscribe", String(topic), "there is no such topic");
    return GROUPS[topic];
  });
  const listener = new Listener(groups, options.receiveBufferBytes ?? DEFAULT_RECEIVE_BUFFER_BYTES);
  const stop = () => listener.close();
  if (options.signal?.aborted === true) stop();
  else options.signal?.addEventListener("abort", stop, { once: true });
  return iterate(listener, options.stats ?? true, () => {
    options.signal?.removeEventListener("abort", stop);
    stop();
  });
}

function iterate(listener: Listener, withCounters: boolean, end: () => void): AsyncIterableIterator<NetlinkEvent> {
  const queue: NetlinkEvent[] = [];
  let turn: Promise<unknown> = Promise.resolve();
  const step = async (): Promise<IteratorResult<NetlinkEvent>> => {
    while (queue.length === 0) {
      const received = await listener.next();
      if (received === "closed") return { done: true, value: undefined };
      if (received === "overrun") queue.push({ type: "overrun" });
      else {
        for (const message of received) {
          const event = eventOf(message, withCounters);
          if (event !== undefined) queue.push(event);
        }
      }
    }
    // Events that were read before an abort are not delivered after it.
    const event = listener.closed ? undefined : queue.shift();
    return event === undefined ? { done: true, value: undefined } : { done: false, value: event };
  };
  return {
    next: () => {
      const result = turn.then(step);
      turn = result.catch(() => undefined);
      return result.catch((error: unknown) => {
        end();
        throw error;
      });
    },
    return: async () => {
      end();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** What a multicast message says; undefined for what this package does not speak. `withCounters` false leaves those of links out. Pure. */
export function eventOf(message: NetlinkMessage, withCounters = true): NetlinkEvent | undefined {
  switch (message.type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      const { fromBridge, link } = decodeLink(message.body, withCounters);
      const action = message.type === RTM_NEWLINK ? "set" : "delete";
      return { type: fromBridge ? "bridge-port" : "link", action, link };
    }
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      const address = decodeAddress(message.body);
      return address && { type: "address", action: message.type === RTM_NEWADDR ? "set" : "delete", address };
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const route = decodeRoute(message.body);
      return route && { type: "route", action: message.type === RTM_NEWROUTE ? "set" : "delete", route };
    }
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH: {
      const neighbour = decodeNeighbour(message.body);
      return neighbour && { type: "neighbour", action: message.type === RTM_NEWNEIGH ? "set" : "delete", neighbour };
    }
    default:
      return undefined;
  }
}
