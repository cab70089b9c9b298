/** Opening a stream into a guest: an HTTP upgrade, which fetch() has no word for, so this needs Node. */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { API_KEY_HEADER, fillPath, STREAM_ENDPOINTS, STREAM_PROTOCOL, type StreamId } from "@volant/contract/endpoints";
import { checkBaseUrl, noAnswer, parseRefusal, stranger, type TransportOptions } from "../transport.ts";
import { requestFunction } from "./http-client.ts";
import { socketPathOf } from "./http-fetch.ts";

export interface StreamRequest {
  readonly id: StreamId;
  readonly vm: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Resolves with the stream once the guest is on it.
 *
 * @throws VolantError the server's error with its code and hint, or `not_ready` when no volantd answers
 */
export async function openUpgrade(options: TransportOptions, request: StreamRequest): Promise<Duplex> {
  const socketPath = socketPathOf(options.baseUrl);
  const name = socketPath === undefined ? checkBaseUrl(options.baseUrl) : options.baseUrl;
  const baseUrl = socketPath === undefined ? name : "http://localhost";
  const { method, path } = STREAM_ENDPOINTS[request.id];
  const query = request.query === undefined ? "" : `?${new URLSearchParams(request.query).toString()}`;
  const url = new URL(`${baseUrl}${fillPath(path, { name: request.vm })}${query}`);
  const outgoing = requestFunction(url.protocol)(url, {
    method,
    agent: false,
    ...(socketPath === undefined ? {} : { socketPath }),
    headers: {
      connection: "Upgrade",
      upgrade: STREAM_PROTOCOL,
      ...(options.apiKey === undefined ? {} : { [API_KEY_HEADER]: options.apiKey }),
    },
    ...(request.signal === undefined ? {} : { signal: request.signal }),
  });
  const { promise, resolve, reject } = Promise.withResolvers<Duplex>();
  outgoing.on("error", (error) => reject(request.signal?.aborted === true ? error : noAnswer(name, error)));
  outgoing.once("upgrade", (_answer, socket: Duplex, head: Buffer) => {
    if (head.length > 0) socket.unshift(head);
    // Until its reader listens: whatever fails is seen as the end of the stream too.
    socket.on("error", () => {});
    resolve(socket);
  });
  outgoing.once("response", (answer: IncomingMessage) => {
    text(answer)
      .then((body) => reject(parseRefusal(body) ?? stranger(name)))
      .catch((error: Error) => reject(noAnswer(name, error)));
  });
  outgoing.end();
  return promise;
}
