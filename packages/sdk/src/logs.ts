import type { VmLogLine } from "@volant/contract";
import { isErrorCode, VolantError } from "@volant/contract/errors";
import { delay } from "./delay.ts";
import { passing, readStream, RECONNECT_MS } from "./events.ts";
import type { Answer, Transport } from "./transport.ts";

export interface LogOptions {
  /** Only so many of the last lines. */
  readonly tail?: number | undefined;
  /** Go on with new lines, through restarts of the VM and of volantd, until the signal aborts or the reader stops. */
  readonly follow?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * What a VM's workload has printed, line by line; also of a VM that is stopped.
 *
 * @throws VolantError `not_found`, also when the VM is deleted meanwhile; `rate_limited` when lines came faster than they were taken
 */
export async function* streamLogs(transport: Transport, name: string, options: LogOptions): AsyncGenerator<VmLogLine> {
  const { tail, follow = false, signal } = options;
  let lastId: string | undefined;
  let connectedOnce = false;
  for (let attempts = 0; ; attempts += 1) {
    let response: Answer | undefined;
    try {
      response = await transport.request("vms.logs", {
        params: { name },
        // After a break the log goes on where it was.
        query: { follow, ...(tail === undefined || lastId !== undefined ? {} : { tail }) },
        headers: lastId === undefined ? {} : { "Last-Event-ID": lastId },
        signal,
      });
      connectedOnce = true;
      attempts = 0;
      for await (const message of readStream(response)) {
        if (message.type === "end") return;
        if (message.type === "error") throw new CutOff(message.data);
        lastId = message.id ?? lastId;
        yield JSON.parse(message.data) as VmLogLine;
      }
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof CutOff) throw error.reason;
      // A connection that breaks in the middle of the stream shows as a TypeError of fetch().
      if (!connectedOnce || !(passing(error) || error instanceof TypeError)) throw error;
    } finally {
      await response?.body?.cancel().catch(() => undefined);
    }
    await delay(RECONNECT_MS[Math.min(attempts, RECONNECT_MS.length - 1)] ?? 0, signal);
  }
}

/** What volantd said at the end of the stream: not to be tried again. */
class CutOff extends Error {
  readonly reason: VolantError;

  constructor(data: string) {
    super("the stream ended with an error");
    const { error, code } = JSON.parse(data) as { error?: unknown; code?: unknown };
    this.reason = new VolantError(isErrorCode(code) ? code : "internal", String(error));
  }
}
