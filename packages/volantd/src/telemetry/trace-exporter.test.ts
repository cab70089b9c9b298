import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { readTraceParent, type Span } from "./spans.ts";
import { TraceExporter } from "./trace-exporter.ts";
import { readTraceSettings } from "./trace-settings.ts";

interface Received {
  readonly path: string | undefined;
  readonly key: string | string[] | undefined;
  readonly body: {
    readonly resourceSpans: readonly {
      readonly resource: { readonly attributes: readonly object[] };
      readonly scopeSpans: readonly { readonly spans: readonly Span[] }[];
    }[];
  };
}

let collector: Server;
let base: string;
const received: Received[] = [];
let status = 200;

before(async () => {
  collector = createServer(async (request, response) => {
    const body = JSON.parse(await text(request)) as Received["body"];
    received.push({ path: request.url, key: request.headers["x-key"], body });
    response.writeHead(status).end();
  }).listen(0, "127.0.0.1");
  await once(collector, "listening");
  base = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
});

after(() => {
  collector.close();
  collector.closeAllConnections();
});

function open(): { readonly exporter: TraceExporter; readonly warnings: string[] } {
  const settings = readTraceSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: base, OTEL_EXPORTER_OTLP_HEADERS: "x-key=a%20b" });
  assert.ok(settings !== undefined);
  const warnings: string[] = [];
  const log = { warn: (_fields: object, message: string) => void warnings.push(message) };
  return { exporter: new TraceExporter({ ...settings, version: "1", log, everyMs: 3_600_000 }), warnings };
}

const REQUEST = { requestId: "r", method: "GET", route: "/api/v1/vms", status: 200, startedMs: 1, endedMs: 3 };
const CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

test("a collector gets a request as part of its caller's trace, and a VM's start with its phases below it", async () => {
  const { exporter, warnings } = open();
  exporter.request({ ...REQUEST, traceParent: CALLER });
  exporter.step({ vmId: 7, kind: "launch", startedMs: 10, endedMs: 20 });
  exporter.step({ vmId: 7, kind: "record_running", startedMs: 50, endedMs: 51 });
  await exporter.close();
  const [{ path, key, body } = {} as Received] = received.splice(0);
  assert.equal(path, "/v1/traces");
  assert.equal(key, "a b");
  const [{ resource, scopeSpans } = { resource: undefined, scopeSpans: [] }] = body.resourceSpans;
  assert.deepEqual(resource?.attributes[0], { key: "service.name", value: { stringValue: "volantd" } });
  const spans = scopeSpans[0]?.spans ?? [];
  assert.deepEqual(
    spans.map(({ name }) => name),
    ["GET /api/v1/vms", "vm start", "vm start: network", "vm start: launch", "vm start: workload"],
  );
  const [request, start, ...phases] = spans;
  assert.equal(request?.traceId, "0af7651916cd43dd8448eb211c80319c");
  assert.equal(request?.parentSpanId, "b7ad6b7169203331");
  assert.equal(BigInt(request?.endTimeUnixNano ?? 0) - BigInt(request?.startTimeUnixNano ?? 0), 2_000_000n);
  for (const phase of phases) {
    assert.equal(phase.traceId, start?.traceId);
    assert.equal(phase.parentSpanId, start?.spanId);
  }
  assert.deepEqual(warnings, []);
});

test("a collector that refuses is named once, and what it did not take is dropped", async () => {
  const { exporter, warnings } = open();
  status = 503;
  for (let i = 0; i < 3; i += 1) {
    exporter.request(REQUEST);
    await exporter.flush();
  }
  assert.deepEqual(warnings, ["traces can't be sent, and are dropped"]);
  status = 200;
  exporter.request(REQUEST);
  received.splice(0);
  await exporter.close();
  assert.equal(received.splice(0)[0]?.body.resourceSpans[0]?.scopeSpans[0]?.spans.length, 1);
});

test("a trace's parent is taken from a valid header only", () => {
  assert.deepEqual(readTraceParent(CALLER), {
    traceId: "0af7651916cd43dd8448eb211c80319c",
    spanId: "b7ad6b7169203331",
  });
  const wrong = [
    undefined,
    "",
    CALLER.toUpperCase(),
    CALLER.replace(/^00/, "ff"),
    `00-${"0".repeat(32)}-${"1".repeat(16)}-01`,
    `${CALLER}\n`,
  ];
  for (const header of wrong) assert.equal(readTraceParent(header), undefined, String(header));
});

test("settings: a general endpoint is a base, that of traces is whole; what is wrong is named, and no secret repeated", () => {
  assert.equal(readTraceSettings({}), undefined);
  assert.equal(
    readTraceSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318", OTEL_SDK_DISABLED: "true" }),
    undefined,
  );
  assert.equal(
    readTraceSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318/x/" })?.url,
    "http://c:4318/x/v1/traces",
  );
  assert.equal(readTraceSettings({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://c/t" })?.url, "https://c/t");
  assert.throws(
    () => readTraceSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: "c:4318" }),
    /OTEL_EXPORTER_OTLP_ENDPOINT is "c:4318"/,
  );
  for (const headers of ["secret", "a=%zz", "a=b%0ac"]) {
    assert.throws(
      () => readTraceSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c", OTEL_EXPORTER_OTLP_HEADERS: headers }),
      (error: Error) => /OTEL_EXPORTER_OTLP_HEADERS/.test(error.message) && !error.message.includes("secret"),
    );
  }
});
