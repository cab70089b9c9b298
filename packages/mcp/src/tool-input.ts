/** A tool's input and its route's, which are the same fields: pure. */
import { ROUTE_SPECS, type RouteId } from "@volant/contract";
import { Type, type TObject, type TProperties } from "typebox";
import type { RouteCall } from "./call.ts";

const closed = { additionalProperties: false } as const;

function fieldsOf(schema: unknown): TProperties {
  return (schema as TObject | undefined)?.properties ?? {};
}

export interface InputChanges {
  /** Fields of the route that the tool does without. */
  readonly without?: readonly string[];
  /** Fields that the tool has in another form: narrower ones, which the route takes, too. */
  readonly instead?: TProperties;
}

/** Everything that a route takes in its path, query and body, as one object. */
export function inputOf(route: RouteId, { without = [], instead = {} }: InputChanges = {}): TObject {
  const { params, query, body } = ROUTE_SPECS[route];
  const fields = { ...fieldsOf(params), ...fieldsOf(query), ...fieldsOf(body), ...instead };
  return Type.Object(Object.fromEntries(Object.entries(fields).filter(([name]) => !without.includes(name))), closed);
}

/** Puts a tool's arguments where the route wants them. They must fit the tool's input. */
export function routeCall(route: RouteId, given: Readonly<Record<string, unknown>>): RouteCall {
  const { params, query, body } = ROUTE_SPECS[route];
  const pick = (schema: unknown, isIn: boolean, from: Readonly<Record<string, unknown>>) =>
    Object.fromEntries(
      Object.entries(from).filter(
        ([name, value]) => value !== undefined && Object.hasOwn(fieldsOf(schema), name) === isIn,
      ),
    );
  const inPath = pick(params, true, given) as Record<string, string>;
  const rest = pick(params, false, given);
  const inQuery = pick(query, true, rest);
  return { params: inPath, query: inQuery, ...(body === undefined ? {} : { body: pick(query, false, rest) }) };
}
