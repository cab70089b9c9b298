/** Spans of OpenTelemetry, in the JSON encoding of OTLP (opentelemetry.io/docs/specs/otlp, section JSON Protobuf Encoding). Pure. */
import type { StartTimes } from "./start-clock.ts";
import type { RequestDone } from "./telemetry.ts";

export type Attribute =
  | { readonly key: string; readonly value: { readonly stringValue: string } }
  /** 64-bit integers are decimal text in protobuf's JSON. */
  | { readonly key: string; readonly value: { readonly intValue: string } };

export interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly Attribute[];
  readonly status?: { readonly code: number };
}

/** SpanKind and Status.StatusCode of opentelemetry/proto/trace/v1/trace.proto. */
const INTERNAL = 1;
const SERVER = 2;
const ERROR = 2;
const NANOSECONDS = 1_000_000;
const FIRST_SERVER_ERROR = 500;

export interface SpanContext {
  /** As many random bytes, in lower-case hexadecimal digits. */
  randomHex(bytes: number): string;
  /** The wall clock's time at a time of performance.now(), in milliseconds since 1970. */
  wallMs(monotonicMs: number): number;
}

const text = (key: string, value: string): Attribute => ({ key, value: { stringValue: value } });
const integer = (key: string, value: number): Attribute => ({ key, value: { intValue: String(value) } });

/** The caller's trace and span, by its `traceparent` (w3.org/TR/trace-context, section 3.2); undefined where there is none that is valid. */
export function readTraceParent(
  header: string | undefined,
): { readonly traceId: string; readonly spanId: string } | undefined {
  const [, version, traceId, spanId] =
    /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?$/.exec(header ?? "") ?? [];
  if (traceId === undefined || spanId === undefined || version === "ff") return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId };
}

function times(
  context: SpanContext,
  startedMs: number,
  endedMs: number,
): Pick<Span, "startTimeUnixNano" | "endTimeUnixNano"> {
  const nanoseconds = (monotonicMs: number): string =>
    String(BigInt(Math.round(context.wallMs(monotonicMs) * 1000)) * BigInt(NANOSECONDS / 1000));
  return { startTimeUnixNano: nanoseconds(startedMs), endTimeUnixNano: nanoseconds(endedMs) };
}

/** One span; part of the caller's trace where it sent one. */
export function requestSpan(done: RequestDone, context: SpanContext): Span {
  const { method, route, status, requestId, startedMs, endedMs } = done;
  const parent = readTraceParent(done.traceParent);
  return {
    traceId: parent?.traceId ?? context.randomHex(16),
    spanId: context.randomHex(8),
    ...(parent === undefined ? {} : { parentSpanId: parent.spanId }),
    name: route === undefined ? method : `${method} ${route}`,
    kind: SERVER,
    ...times(context, startedMs, endedMs),
    attributes: [
      text("http.request.method", method),
      ...(route === undefined ? [] : [text("http.route", route)]),
      integer("http.response.status_code", status),
      text("volant.request.id", requestId),
    ],
    ...(status >= FIRST_SERVER_ERROR ? { status: { code: ERROR } } : {}),
  };
}

/** A span for a VM's start, and one for each of its phases below it. */
export function startSpans({ vmId, startedMs, endedMs, phases }: StartTimes, context: SpanContext): Span[] {
  const traceId = context.randomHex(16);
  const spanId = context.randomHex(8);
  const common = { traceId, kind: INTERNAL, attributes: [integer("volant.vm.id", vmId)] };
  return [
    { ...common, spanId, name: "vm start", ...times(context, startedMs, endedMs) },
    ...phases.map((part) => ({
      ...common,
      spanId: context.randomHex(8),
      parentSpanId: spanId,
      name: `vm start: ${part.phase}`,
      ...times(context, part.startedMs, part.endedMs),
    })),
  ];
}

/** The body of an export (ExportTraceServiceRequest). */
export function exportBody(spans: readonly Span[], service: string, version: string): string {
  const resource = { attributes: [text("service.name", service), text("service.version", version)] };
  return JSON.stringify({
    resourceSpans: [{ resource, scopeSpans: [{ scope: { name: "volantd", version }, spans }] }],
  });
}
