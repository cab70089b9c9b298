import { VolantError } from "@volant/contract";
import type { TObject, TSchema } from "typebox";

type RawQuery = Readonly<Record<string, string | readonly string[] | undefined>>;

function schemaType(schema: TSchema | undefined): unknown {
  return (schema as { type?: unknown } | undefined)?.type;
}

function convert(type: unknown, text: string): unknown {
  if (type === "integer" && /^-?[0-9]{1,15}$/.test(text)) return Number(text);
  if (type === "boolean" && (text === "true" || text === "false")) return text === "true";
  return text;
}

function readValue(name: string, type: unknown, values: readonly string[]): unknown {
  if (type === "array") {
    const parts = values.flatMap((part) => part.split(",")).map((part) => part.trim());
    return parts.filter((part) => part !== "");
  }
  const [first = "", ...more] = values;
  if (more.length > 0) {
    throw new VolantError("invalid", `query: field ${JSON.stringify(name)} is given more than once`);
  }
  return convert(type, first);
}

/**
 * Query text as the schema's types: integers and booleans parsed where they are ones, lists split at commas and gathered over
 * repeats. What does not convert stays text, for the schema to refuse by name.
 *
 * @throws VolantError `invalid` when a single value is given more than once
 */
export function readQuery(schema: TObject, raw: RawQuery): Record<string, unknown> {
  const properties: Readonly<Record<string, TSchema>> = schema.properties;
  return Object.fromEntries(
    Object.entries(raw).flatMap(([name, value]) => {
      if (value === undefined) return [];
      const type = schemaType(Object.hasOwn(properties, name) ? properties[name] : undefined);
      return [[name, readValue(name, type, typeof value === "string" ? [value] : value)]];
    }),
  );
}
