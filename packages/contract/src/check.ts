import type { Static, TSchema } from "typebox";
import { Value } from "typebox/value";
import { VolantError } from "./errors.ts";

interface SchemaError {
  readonly keyword: string;
  readonly instancePath: string;
  readonly params: object;
  readonly message: string;
}

/** `/workload/env/A~1B` → `workload.env.A/B` (RFC 6901 escapes undone). */
function fieldName(pointer: string): string {
  return pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .join(".");
}

function list(values: unknown): string {
  return Array.isArray(values) ? values.map((value) => JSON.stringify(value)).join(", ") : JSON.stringify(values);
}

/**
 * One sentence for the first thing that is wrong, naming the field. A union reports each of its branches; where all branches
 * are constants the sentence lists them.
 *
 * @param what what is being checked, such as "manifest" or "request body"
 */
export function describeSchemaErrors(what: string, errors: readonly SchemaError[]): string {
  const unknown = errors.find((error) => error.keyword === "additionalProperties");
  if (unknown !== undefined) {
    const names = (unknown.params as { additionalProperties?: string[] }).additionalProperties ?? [];
    const prefix = fieldName(unknown.instancePath);
    const full = names.map((name) => (prefix === "" ? name : `${prefix}.${name}`));
    return `${what}: unknown field ${full.map((name) => `"${name}"`).join(", ")}`;
  }
  const union = errors.find((error) => error.keyword === "anyOf");
  const first = union ?? errors[0];
  if (first === undefined) return `${what} is not valid`;
  const field = fieldName(first.instancePath);
  const where = field === "" ? what : `${what}: field "${field}"`;
  if (union !== undefined) {
    const allowed = errors
      .filter((error) => error.keyword === "const" && error.instancePath === union.instancePath)
      .map((error) => (error.params as { allowedValue?: unknown }).allowedValue);
    if (allowed.length > 0) return `${where} must be one of ${list(allowed)}`;
  }
  if (first.keyword === "required") {
    const names = (first.params as { requiredProperties?: string[] }).requiredProperties ?? [];
    return `${where} lacks ${names.map((name) => `"${name}"`).join(", ")}`;
  }
  return `${where} ${first.message}`;
}

/**
 * The value, typed, if it fits the schema.
 *
 * @throws VolantError `invalid` with one sentence naming the first field that does not fit
 */
export function checkSchema<T extends TSchema>(schema: T, value: unknown, what: string): Static<T> {
  if (Value.Check(schema, value)) return value as Static<T>;
  throw new VolantError("invalid", describeSchemaErrors(what, [...Value.Errors(schema, value)]));
}
