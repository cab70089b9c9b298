/** Logs of workloads: server-sent events, and a WebSocket for the same lines. */
import { checkSchema, LOG_CURSOR_PATTERN, ROUTE_SCOPES, ROUTE_SPECS, VmLogQuery, VolantError } from "@volant/contract";
import type { FastifyInstance } from "fastify";
import type { LogUseCases, StoredLogLine } from "../engine/use-cases.ts";
import type { EventStreams } from "./events.ts";
import type { ReadInput } from "./handler.ts";
import { readQuery } from "./query.ts";
import { acceptSocket, sendAll, type SocketRequest, type SocketTarget } from "./web-sockets.ts";

/** Said at the end of a log that is not followed: its reader knows that it has all of it. */
const END_FRAME = "event: end\ndata: {}\n\n";

async function* frames(lines: AsyncIterable<StoredLogLine>, follow: boolean): AsyncGenerator<string> {
  for await (const { line, cursor } of lines) yield `id: ${cursor}\ndata: ${JSON.stringify(line)}\n\n`;
  if (!follow) yield END_FRAME;
}

/** The route `vms.logs`. */
export function addLogRoute(app: FastifyInstance, logs: LogUseCases, streams: EventStreams, read: ReadInput): void {
  app.route({
    method: "GET",
    url: ROUTE_SPECS["vms.logs"].path,
    config: { scope: ROUTE_SCOPES["vms.logs"] },
    exposeHeadRoute: false,
    handler: async (request, reply) => {
      const { params, query } = read("vms.logs", request);
      const after = request.headers["last-event-id"];
      if (after !== undefined && (typeof after !== "string" || !new RegExp(LOG_CURSOR_PATTERN).test(after))) {
        throw new VolantError("invalid", "the header Last-Event-ID is not the id of a log's line");
      }
      const follow = query?.follow === true;
      const signal = streams.track(reply.raw);
      const lines = logs.read(params.name, { tail: query?.tail, after, follow, signal });
      reply.hijack();
      await streams.serveFrames(reply.raw, reply.getHeaders(), frames(lines, follow), signal);
    },
  });
}

/** Serves a log over a WebSocket, following it. @throws VolantError `not_found`, before the connection is a WebSocket */
export function serveLogSocket(
  logs: LogUseCases,
  request: SocketRequest,
  { name, query: given }: SocketTarget,
  signal: AbortSignal,
): void {
  const query = checkSchema(VmLogQuery, readQuery(VmLogQuery, given), "query");
  const gone = new AbortController();
  const ended = AbortSignal.any([signal, gone.signal]);
  const lines = logs.read(name, { tail: query.tail, follow: query.follow !== false, signal: ended });
  acceptSocket(request, (client) => {
    client.once("close", () => gone.abort());
    void sendAll(client, messages(lines), request.onBug);
  });
}

async function* messages(lines: AsyncIterable<StoredLogLine>): AsyncGenerator<string> {
  for await (const { line } of lines) yield JSON.stringify(line);
}
