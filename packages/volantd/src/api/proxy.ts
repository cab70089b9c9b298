/**
 * The proxy into a guest: `…/vms/:name/agent/<path>`. Each request is one HTTP/1.1 exchange over one connection through the guest's agent, whose
 * bodies stream both ways.
 *
 * Pages of a guest come from volantd's own origin. They are sandboxed into an origin of their own, or a guest's script could use the API in the
 * name of whoever looks at the page; and headers that speak for a whole origin are not passed on.
 */
import {
  request as httpRequest,
  ServerResponse,
  STATUS_CODES,
  type ClientRequest,
  type IncomingMessage,
} from "node:http";
import type { Duplex } from "node:stream";
import { AGENT_PATH, ANSWERED_BY_HEADER, API_KEY_HEADER, fillPath, VolantError } from "@volant/contract";
import type { ReachUseCases } from "../engine/use-cases.ts";
import { readVmName } from "./url-name.ts";
import { joinStreams } from "../join-streams.ts";
import { bearerToken, protocolsWithoutKeys } from "./credentials.ts";
import type { Forwarded } from "./client-address.ts";

/** Header fields of a message that goes out, by lower-case name. */
export type HeaderFields = Record<string, number | string | string[] | undefined>;

/** What a proxied request's path names. */
export interface ProxyTarget {
  readonly name: string;
  /** `agent`: its own health. Else path and query for the workload. */
  readonly to: "agent" | { readonly path: string };
}

const TARGET = /^\/api\/v1\/vms\/([^/?]+)\/agent(\/[^?]*)?(\?.*)?$/s;

/**
 * The target of a request's URL; undefined for one that is not the proxy's. The path is passed on as it was written, percent-encoding and all.
 *
 * @throws VolantError `invalid` for a name that is none
 */
export function parseProxyTarget(url: string): ProxyTarget | undefined {
  const match = TARGET.exec(url);
  if (match === null) return undefined;
  const [, encoded = "", path = "/", query = ""] = match;
  const name = readVmName(encoded);
  if (path === "/healthz") return { name, to: "agent" };
  const workloadPath = path === "/v1" ? "/" : path.replace(/^\/v1\//, "/");
  return { name, to: { path: `${workloadPath}${query}` } };
}

/** RFC 9110 section 7.6.1: fields that are about one connection, besides those that `Connection` names. */
const HOP_BY_HOP = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];
/** Fields of an answer that would speak for the whole of volantd's origin. */
const ORIGIN_WIDE = [
  "alt-svc",
  "clear-site-data",
  "nel",
  "report-to",
  "reporting-endpoints",
  "service-worker-allowed",
  "strict-transport-security",
];
/** Content-Security-Policy of whatever comes from a guest. */
export const SANDBOX = "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads";

/** A message's header fields by lower-case name, without those about its connection and those in `dropped`. */
function endToEnd(message: IncomingMessage, dropped: readonly string[]): Record<string, string[]> {
  const named = (message.headersDistinct["connection"] ?? []).flatMap((value) => value.toLowerCase().split(/\s*,\s*/));
  const not = new Set([...HOP_BY_HOP, ...named, ...dropped]);
  return Object.fromEntries(
    Object.entries(message.headersDistinct).filter(
      (field): field is [string, string[]] => field[1] !== undefined && !not.has(field[0]),
    ),
  );
}

/** The fields that the workload gets. */
export function requestHeaders(
  request: IncomingMessage,
  authority: string,
  name: string,
  { isKey, forwarded }: Pick<ProxyOptions, "isKey" | "forwarded">,
): HeaderFields {
  const headers: HeaderFields = endToEnd(request, [API_KEY_HEADER.toLowerCase(), "expect", "host"]);
  const { authorization, host } = request.headers;
  // Which is for volantd and not for the workload; the workload's own goes through.
  const token = bearerToken(authorization);
  if (token !== undefined && isKey(token)) delete headers["authorization"];
  if (request.headers["sec-websocket-protocol"] !== undefined) {
    delete headers["sec-websocket-protocol"];
    const protocols = protocolsWithoutKeys(request.headers);
    if (protocols !== undefined) headers["sec-websocket-protocol"] = protocols;
  }
  headers["host"] = authority;
  headers["x-forwarded-for"] = forwarded.for;
  if (host !== undefined) headers["x-forwarded-host"] = host;
  headers["x-forwarded-proto"] = forwarded.proto;
  headers["x-forwarded-prefix"] = fillPath(AGENT_PATH, { name });
  if (request.headers["transfer-encoding"] !== undefined) headers["transfer-encoding"] = "chunked";
  return headers;
}

/** Where a redirect within the workload leads when one comes through the proxy. */
export function rewriteLocation(location: string, authority: string, name: string): string {
  const path = location.startsWith(`http://${authority}/`) ? location.slice(`http://${authority}`.length) : location;
  if (!path.startsWith("/") || path.startsWith("//")) return location;
  // By way of v1/, so that no path of the workload is taken for the agent's own.
  return `${fillPath(AGENT_PATH, { name })}/v1${path}`;
}

/** The fields that the client gets. */
export function responseHeaders(
  answer: IncomingMessage,
  authority: string,
  name: string,
  own: HeaderFields,
): HeaderFields {
  const headers: HeaderFields = endToEnd(answer, ORIGIN_WIDE);
  const policies = answer.headersDistinct["content-security-policy"] ?? [];
  headers["content-security-policy"] = [...policies, SANDBOX];
  const { location } = answer.headers;
  if (location !== undefined) headers["location"] = rewriteLocation(location, authority, name);
  return { ...headers, ...own, [ANSWERED_BY_HEADER.toLowerCase()]: name };
}

function unreachable(name: string, error: Error): VolantError {
  if (error instanceof VolantError) return error;
  return new VolantError("guest_unreachable", `the workload of VM "${name}" does not answer: ${error.message}`, {
    cause: error,
  });
}

export interface ProxyOptions {
  readonly reach: ReachUseCases;
  /** Whether a text is a key of this API, which no guest may see. */
  readonly isKey: (text: string) => boolean;
  readonly forwarded: Forwarded;
  readonly request: IncomingMessage;
  readonly target: ProxyTarget;
  /** The client is gone. */
  readonly signal: AbortSignal;
  /** Fields of volantd's own for the answer; they win. */
  readonly headers: HeaderFields;
}

interface Exchange {
  readonly outgoing: ClientRequest;
  readonly connection: Duplex;
  readonly authority: string;
}

async function begin(options: ProxyOptions, path: string, extra: HeaderFields = {}): Promise<Exchange> {
  const { reach, request, target, signal } = options;
  const { authority, connect } = reach.workload(target.name);
  const connection = await connect(signal);
  const outgoing = httpRequest({
    method: request.method,
    path,
    headers: { ...requestHeaders(request, authority, target.name, options), ...extra },
    createConnection: () => connection,
  });
  // A connection outlives the exchange otherwise: nobody else will close it.
  outgoing.once("close", () => {
    if (!upgraded.has(outgoing)) connection.destroy();
  });
  return { outgoing, connection, authority };
}

const upgraded = new WeakSet<ClientRequest>();

/**
 * Passes a request on and streams the answer. Resolves when the answer has begun.
 *
 * @throws VolantError `guest_unreachable` and others, when there is no answer to pass on
 */
export async function proxyRequest(options: ProxyOptions & { readonly response: ServerResponse }): Promise<void> {
  const { reach, request, response, target, signal, headers } = options;
  if (target.to === "agent") {
    if (request.method !== "GET" && request.method !== "HEAD") {
      throw new VolantError("not_found", `there is no route ${request.method} to the agent's own health`);
    }
    await reach.agentHealth(target.name, signal);
    response.writeHead(200, { ...headers, "content-type": "application/json; charset=utf-8" });
    response.end(JSON.stringify({ status: "ok" }));
    return;
  }
  const { outgoing, connection, authority } = await begin(options, target.to.path);
  const giveUp = () => outgoing.destroy();
  response.once("close", giveUp);
  const answered = Promise.withResolvers<IncomingMessage>();
  outgoing.once("response", answered.resolve);
  outgoing.on("error", answered.reject);
  outgoing.once("close", () => {
    answered.reject(new Error("it closed the connection"));
    // The answer may come before the request is over; what is left of that is read and dropped.
    request.unpipe(outgoing);
    request.resume();
  });
  request.pipe(outgoing);
  let answer: IncomingMessage;
  try {
    answer = await answered.promise;
  } catch (error) {
    response.off("close", giveUp);
    throw unreachable(target.name, error as Error);
  }
  response.writeHead(
    answer.statusCode ?? 502,
    answer.statusMessage ?? "",
    responseHeaders(answer, authority, target.name, headers),
  );
  response.flushHeaders();
  // An answer that ends where its connection does is whole for Node's parser even when that broke, so this comes before the parser hears of it.
  connection.prependOnceListener("error", () => {
    if (!answer.complete) response.destroy();
  });
  // Half an answer must not look like a whole one.
  answer.once("error", () => response.destroy());
  answer.once("close", () => {
    if (!answer.complete) response.destroy();
  });
  answer.pipe(response);
}

/**
 * Passes an upgrade on, such as a WebSocket's. Resolves when both sides are joined, or a refusal was passed on.
 *
 * @throws VolantError `guest_unreachable` and others, when there is no answer to pass on
 */
export async function proxyUpgrade(options: ProxyOptions & { readonly socket: Duplex }): Promise<void> {
  const { request, socket, target, signal, headers } = options;
  if (target.to === "agent") throw new VolantError("invalid", "the agent's own health is no WebSocket");
  const { outgoing, authority } = await begin(options, target.to.path, {
    connection: "Upgrade",
    upgrade: request.headers.upgrade ?? "websocket",
  });
  const giveUp = () => outgoing.destroy();
  signal.addEventListener("abort", giveUp, { once: true });
  const done = Promise.withResolvers<void>();
  outgoing.on("error", done.reject);
  outgoing.once("close", () => done.reject(new Error("it closed the connection")));
  outgoing.once("upgrade", (answer, connection: Duplex, head: Buffer) => {
    upgraded.add(outgoing);
    signal.removeEventListener("abort", giveUp);
    const fields = {
      ...endToEnd(answer, ORIGIN_WIDE),
      connection: ["Upgrade"],
      upgrade: [answer.headers.upgrade ?? ""],
    };
    const lines = Object.entries(fields).flatMap(([name, values]) => values.map((value) => `${name}: ${value}\r\n`));
    socket.write(`HTTP/1.1 101 ${STATUS_CODES[101]}\r\n${lines.join("")}\r\n`);
    if (head.length > 0) socket.write(head);
    joinStreams(socket, connection);
    done.resolve();
  });
  outgoing.once("response", (answer) => {
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(socket as never);
    response.writeHead(answer.statusCode ?? 502, responseHeaders(answer, authority, target.name, headers));
    answer.once("error", () => socket.destroy());
    response.once("finish", () => socket.end());
    answer.pipe(response);
    done.resolve();
  });
  outgoing.end();
  try {
    await done.promise;
  } catch (error) {
    throw unreachable(target.name, error as Error);
  }
}
