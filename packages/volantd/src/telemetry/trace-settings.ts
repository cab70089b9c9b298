/** Where traces go, by the environment variables of OpenTelemetry (opentelemetry.io/docs/specs/otel/protocol/exporter). Pure. */
import { VolantError } from "@volant/contract";

export interface TraceSettings {
  /** Whole. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly service: string;
}

const ALL = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const HEADERS = "OTEL_EXPORTER_OTLP_HEADERS";

function checkUrl(variable: string, value: string): URL {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url?.protocol === "http:" || url?.protocol === "https:") return url;
  throw new VolantError(
    "invalid",
    `${variable} is ${JSON.stringify(value)}, which is no URL such as http://collector:4318`,
  );
}

/** `name=value` pairs with commas between them, each percent-encoded. */
function readHeaders(value: string): Record<string, string> {
  const pairs = value.split(",").filter((pair) => pair.trim() !== "");
  return Object.fromEntries(
    pairs.map((pair) => {
      const [, name = "", text = ""] = /^\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(.*?)\s*$/.exec(pair) ?? [];
      let decoded: string;
      try {
        decoded = decodeURIComponent(text);
      } catch {
        decoded = "\n";
      }
      // RFC 9110, section 5.5. What is wrong is not repeated: it may be a secret.
      if (name === "" || !/^[\t\x20-\x7e\x80-\xff]*$/.test(decoded)) {
        throw new VolantError("invalid", `${HEADERS} is no list such as name=value,name=value`);
      }
      return [name, decoded];
    }),
  );
}

/** @returns undefined where no endpoint is set: then nothing is traced. @throws VolantError `invalid` that names the variable */
export function readTraceSettings(env: Readonly<Record<string, string | undefined>>): TraceSettings | undefined {
  const read = (variable: string): string | undefined => {
    const value = env[variable]?.trim();
    return value === "" ? undefined : value;
  };
  if (read("OTEL_SDK_DISABLED")?.toLowerCase() === "true") return undefined;
  const traces = read(TRACES);
  const all = read(ALL);
  if (traces === undefined && all === undefined) return undefined;
  const url = traces === undefined ? checkUrl(ALL, all ?? "") : checkUrl(TRACES, traces);
  // The specification has it so: the general one is a base, that of traces is taken as it is.
  if (traces === undefined) url.pathname = `${url.pathname.replace(/\/$/, "")}/v1/traces`;
  return { url: url.href, headers: readHeaders(read(HEADERS) ?? ""), service: read("OTEL_SERVICE_NAME") ?? "volantd" };
}
