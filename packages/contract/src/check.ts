import type { Static, TSchema } from "typebox";
import { Value } from "typebox/value";
import { VolantError } from "./errors.ts";
import { TIME_PATTERN } from "./event.ts";
import { CHECKSUM_PATTERN } from "./manifest.ts";
import { NAME_PATTERN, checkName } from "./names.ts";

/** What a pattern asks for, in words: a reader should not have to read a regular expression. */
const PATTERN_WORDS: Readonly<Record<string, string>> = {
  [NAME_PATTERN]:
    'must be letters, digits, ".", "_" and "-", starting with a letter or digit, and at most 63 characters long',
  [CHECKSUM_PATTERN]: "must be sha256: and 64 lower-case hexadecimal digits",
  [TIME_PATTERN]: "must be a time such as 2026-01-31T08:00:00Z",
  "^/": "must start with /",
};

interface SchemaError {
  readonly keyword: string;
  readonly schemaPath: string;
  readonly instancePath: string;
  readonly params: object;
  readonly message: string;
}

/** What a JSON pointer (RFC 6901) points at, or undefined. */
function pointed(value: unknown, pointer: string): unknown {
  let at = value;
  for (const part of pointer.split("/").slice(1)) {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, key)) return undefined;
    at = (at as Record<string, unknown>)[key];
  }
  return at;
}

/** The better sentence for a bad name, which knows what kind of object it would name and which character is wrong. */
function checkNames(schema: TSchema, value: unknown, errors: readonly SchemaError[]): void {
  for (const { schemaPath, instancePath } of errors) {
    const at = pointed(schema, schemaPath) as { pattern?: unknown; title?: unknown } | undefined;
    const text = pointed(value, instancePath);
    if (at?.pattern === NAME_PATTERN && typeof at.title === "string" && typeof text === "string") {
      checkName(at.title, text);
    }
  }
}

/** `/workload/env/A~1B` → `workload.env.A/B` (RFC 6901 escapes undone). */
function fieldName(pointer: string): string {
  return pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .join(".");
}

const TYPE_WORDS: Readonly<Record<string, string>> = {
  object: "an object",
  array: "a list",
  string: "text",
  integer: "a whole number",
  number: "a number",
  boolean: "true or false",
};

function list(values: unknown): string {
  return Array.isArray(values) ? values.map((value) => JSON.stringify(value)).join(", ") : JSON.stringify(values);
}

/** In a union of something and null, what is wrong is wrong with the something. */
function withoutNullBranches(errors: readonly SchemaError[]): readonly SchemaError[] {
  const isNull = ({ keyword, params }: SchemaError) =>
    keyword === "type" && (params as { type?: unknown }).type === "null";
  const nullable = new Set(errors.filter(isNull).map(({ instancePath }) => instancePath));
  const rest = errors.filter((error) => {
    return !isNull(error) && !(error.keyword === "anyOf" && nullable.has(error.instancePath));
  });
  return rest.length === 0 ? errors : rest;
}

/**
 * One sentence for the first thing that is wrong, naming the field. A union reports each of its branches; where all branches
 * are constants the sentence lists them.
 *
 * @param what what is being checked, such as "manifest" or "request body"
 */
export function describeSchemaErrors(what: string, all: readonly SchemaError[]): string {
  const errors = withoutNullBranches(all);
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
  if (first.keyword === "pattern") {
    const words = PATTERN_WORDS[(first.params as { pattern?: string }).pattern ?? ""];
    if (words !== undefined) return `${where} ${words}`;
  }
  if (first.keyword === "type") {
    const type = (first.params as { type?: unknown }).type;
    if (typeof type === "string") return `${where} must be ${TYPE_WORDS[type] ?? type}`;
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
  const errors = Value.Errors(schema, value);
  checkNames(schema, value, errors);
  throw new VolantError("invalid", describeSchemaErrors(what, errors));
}
