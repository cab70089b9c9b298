/** One HTTP exchange with a workload, over one connection through its guest's agent. The answer is taken whole: what comes from a guest is bounded in size and time. */
import { request as httpRequest, type IncomingMessage } from "node:http";
import { VolantError } from "@volant/contract";
import type { Workload } from "./use-cases.ts";
import { messageOf } from "../message-of.ts";

/** The most of an answer that is kept; whoever wants more uses the proxy, which streams. */
export const MAX_ANSWER_BYTES = 8 * 1024 * 1024;

export interface WorkloadRequest {
  readonly method: string;
  /** Path and query, fit for a request line. */
  readonly path: string;
  /** JSON. */
  readonly body?: string | undefined;
  /** For all of it. */
  readonly timeoutMs: number;
  /** Nobody wants the answer any more. */
  readonly signal: AbortSignal;
}

export interface WorkloadAnswer {
  readonly status: number;
  readonly contentType: string | undefined;
  readonly body: Buffer;
}

async function readBody(vm: string, answer: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of answer as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > MAX_ANSWER_BYTES) {
      throw new VolantError(
        "guest_unreachable",
        `the workload of VM "${vm}" answers with more than ${MAX_ANSWER_BYTES} bytes`,
        { hint: "ask it through the proxy, …/agent/<path>, which has no limit" },
      );
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}

async function exchange({ authority, connect }: Workload, vm: string, request: WorkloadRequest, signal: AbortSignal) {
  const connection = await connect(signal);
  try {
    const outgoing = httpRequest({
      method: request.method,
      path: request.path,
      headers: {
        host: authority,
        accept: "application/json, */*;q=0.5",
        ...(request.body === undefined
          ? {}
          : { "content-type": "application/json", "content-length": Buffer.byteLength(request.body) }),
      },
      createConnection: () => connection,
      signal,
    });
    const answered = Promise.withResolvers<IncomingMessage>();
    outgoing.once("response", answered.resolve);
    outgoing.on("error", answered.reject);
    // An answer that asks to go on as something else is none.
    outgoing.once("upgrade", () => answered.reject(new Error("it changed the protocol")));
    outgoing.once("close", () => answered.reject(new Error("it closed the connection")));
    outgoing.end(request.body);
    const answer = await answered.promise;
    const body = await readBody(vm, answer);
    return { status: answer.statusCode ?? 502, contentType: answer.headers["content-type"], body };
  } finally {
    connection.destroy();
  }
}

/**
 * Asks a workload and takes its answer, whatever the status.
 *
 * @param vm its VM's name, for sentences
 * @throws VolantError `guest_unreachable`, `timeout`
 */
export async function askWorkload(workload: Workload, vm: string, request: WorkloadRequest): Promise<WorkloadAnswer> {
  const late = AbortSignal.timeout(request.timeoutMs);
  try {
    return await exchange(workload, vm, request, AbortSignal.any([request.signal, late]));
  } catch (error) {
    if (late.aborted) {
      throw new VolantError("timeout", `the workload of VM "${vm}" did not answer within ${request.timeoutMs} ms`);
    }
    if (error instanceof VolantError) throw error;
    const why = messageOf(error);
    throw new VolantError("guest_unreachable", `the workload of VM "${vm}" does not answer: ${why}`, { cause: error });
  }
}
