/**
 * Sends traces to a collector by OTLP over HTTP, in JSON (opentelemetry.io/docs/specs/otlp): a hundred lines, where the libraries for it are 28 MB. It holds nothing up: what the
 * collector does not take in time is dropped, and said once.
 */
import { randomBytes } from "node:crypto";
import { exportBody, requestSpan, startSpans, type Span, type SpanContext } from "./spans.ts";
import { StartClock } from "./start-clock.ts";
import type { RequestDone, StepDone, Telemetry } from "./telemetry.ts";

export interface TraceOptions {
  /** Where spans are posted to, whole: `…/v1/traces`. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly service: string;
  readonly version: string;
  readonly log: { warn(fields: Readonly<Record<string, unknown>>, message: string): void };
  /** Between exports, in milliseconds. Default: 5 s, as the specification has it. */
  readonly everyMs?: number;
}

const EVERY_MS = 5000;
const TIMEOUT_MS = 10_000;
/** The specification's defaults for a batch and a queue. */
const LARGEST_BATCH = 512;
const LONGEST_QUEUE = 2048;

/** By the clocks as they are now, the same for all of a trace's spans. */
function spanContext(): SpanContext {
  const offsetMs = Date.now() - performance.now();
  return {
    randomHex: (bytes) => randomBytes(bytes).toString("hex"),
    wallMs: (monotonicMs) => offsetMs + monotonicMs,
  };
}

export class TraceExporter implements Telemetry {
  readonly #options: TraceOptions;
  readonly #starts = new StartClock();
  readonly #timer: NodeJS.Timeout;
  #queue: Span[] = [];
  #dropped = 0;
  #isFailing = false;
  #sending: Promise<void> | undefined;

  constructor(options: TraceOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.flush(), options.everyMs ?? EVERY_MS).unref();
  }

  request(done: RequestDone): void {
    this.#add([requestSpan(done, spanContext())]);
  }

  step(done: StepDone): void {
    const start = this.#starts.see(done);
    if (start !== undefined) this.#add(startSpans(start, spanContext()));
  }

  /** Sends what there is. Resolves when it is sent, or dropped. */
  flush(): Promise<void> {
    this.#sending ??= this.#send().finally(() => (this.#sending = undefined));
    return this.#sending;
  }

  /** Sends what is left. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#sending;
    await this.flush();
  }

  #add(spans: readonly Span[]): void {
    const room = LONGEST_QUEUE - this.#queue.length;
    this.#queue.push(...spans.slice(0, Math.max(0, room)));
    this.#dropped += Math.max(0, spans.length - room);
  }

  async #send(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, LARGEST_BATCH);
      try {
        await this.#post(batch);
        this.#isFailing = false;
      } catch (error) {
        this.#dropped += batch.length;
        // Once, and not every five seconds.
        if (!this.#isFailing) {
          const { message } = error as Error;
          this.#options.log.warn(
            { url: this.#options.url, reason: message, dropped: this.#dropped },
            "traces can't be sent, and are dropped",
          );
        }
        this.#isFailing = true;
        return;
      }
    }
  }

  async #post(spans: readonly Span[]): Promise<void> {
    const { url, headers, service, version } = this.#options;
    const response = await fetch(url, {
      method: "POST",
      headers: { ...headers, "content-type": "application/json" },
      body: exportBody(spans, service, version),
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    await response.arrayBuffer();
    if (!response.ok) throw new Error(`the collector answers ${response.status}`);
  }
}
