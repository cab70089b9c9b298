/** From anything thrown to an answer: expected failures keep their sentence, bugs keep their details to the log. */
import { errorStatus, VolantError, type ErrorBody } from "@volant/contract";
import { TooOften } from "./gates.ts";

export interface Failure {
  readonly status: number;
  readonly body: ErrorBody;
  readonly headers?: Readonly<Record<string, string>>;
  /** A bug: to be logged with its details. */
  readonly unexpected: boolean;
}

function property(error: unknown, name: string): unknown {
  return typeof error === "object" && error !== null ? (error as Record<string, unknown>)[name] : undefined;
}

/** fastify's own refusals, by its codes, in Volant's words. */
function frameworkError(error: unknown): VolantError | undefined {
  const status = property(error, "statusCode");
  const message = error instanceof Error ? error.message : "bad request";
  switch (property(error, "code")) {
    case "FST_ERR_CTP_BODY_TOO_LARGE":
      return new VolantError("too_large", "the request body is larger than allowed (JSON: 1 MiB)");
    case "FST_ERR_CTP_INVALID_MEDIA_TYPE":
      return new VolantError("invalid", "the request body has a content type that this route does not take", {
        hint: "send JSON with Content-Type: application/json, a file with application/octet-stream",
      });
    case "FST_ERR_CTP_INVALID_CONTENT_LENGTH":
      return new VolantError("invalid", "the request body is shorter or longer than its Content-Length says");
    case "FST_ERR_CTP_INVALID_JSON_BODY":
      return new VolantError("invalid", "the request body is not JSON");
    case "FST_ERR_BAD_URL":
      return new VolantError("invalid", "the request path is not a valid URL path");
    default:
  }
  if (error instanceof SyntaxError && status === 400) {
    return new VolantError("invalid", `the request body is not JSON: ${message}`);
  }
  return typeof status === "number" && status >= 400 && status < 500 ? new VolantError("invalid", message) : undefined;
}

/** The answer for a thrown value. */
export function failureOf(error: unknown, requestId: string): Failure {
  const known = error instanceof VolantError ? error : frameworkError(error);
  if (known === undefined || known.code === "internal") {
    const sentence = `volantd has a bug that this request ran into; its log tells more under request id ${requestId}`;
    return { status: 500, body: { error: sentence, code: "internal" }, unexpected: true };
  }
  const body: ErrorBody = { error: known.message, code: known.code };
  if (known.hint !== undefined) body.hint = known.hint;
  const headers = known instanceof TooOften ? { headers: { "retry-after": String(known.retryAfterSeconds) } } : {};
  return { status: errorStatus(known.code), body, ...headers, unexpected: false };
}
