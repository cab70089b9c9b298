/** What a workload's OpenAPI document offers, and how each is asked. The document comes from a guest: nothing in it is trusted to have any shape. Pure. */
import { VolantError } from "@volant/contract/errors";

/** Methods that a path of OpenAPI 3.1 can have (section 4.8.9), and that fetch() can send. */
const METHODS = ["get", "put", "post", "delete", "options", "head", "patch"] as const;

/** One thing that a workload can be asked. */
export interface Operation {
  /** Its `operationId`, else method and path. */
  readonly id: string;
  readonly method: string;
  /** Path of the workload, with parameters in braces. */
  readonly path: string;
  readonly summary: string;
  /** Names of its query parameters, as far as the document says. */
  readonly query: readonly string[];
  /** Whether it takes a body. */
  readonly body: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

function fields(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** What the first server's URL puts before each path. */
function prefixOf(document: Fields): string {
  const servers = Array.isArray(document["servers"]) ? (document["servers"] as unknown[]) : [];
  const url = text(fields(servers[0])["url"]);
  const base = text(document["basePath"]);
  const written = url === "" ? base : url;
  if (!URL.canParse(written, "http://workload/")) return "";
  return new URL(written, "http://workload/").pathname.replace(/\/+$/, "");
}

function queryNames(path: Fields, operation: Fields): string[] {
  const all = [path["parameters"], operation["parameters"]].flatMap((list) =>
    Array.isArray(list) ? (list as unknown[]) : [],
  );
  const names = all.map(fields).flatMap((each) => (each["in"] === "query" ? [text(each["name"])] : []));
  return [...new Set(names.filter((name) => name !== ""))];
}

/** Every operation that the document names, in its order. */
export function listOperations(document: unknown): Operation[] {
  const root = fields(document);
  const prefix = prefixOf(root);
  return Object.entries(fields(root["paths"])).flatMap(([path, value]) => {
    const item = fields(value);
    if (!path.startsWith("/")) return [];
    return METHODS.flatMap((method) => {
      if (typeof item[method] !== "object" || item[method] === null) return [];
      const operation = fields(item[method]);
      const verb = method.toUpperCase();
      return {
        id: text(operation["operationId"]) || `${verb} ${path}`,
        method: verb,
        path: `${prefix}${path}`,
        summary: text(operation["summary"]) || text(operation["description"]).split("\n", 1).join(""),
        query: queryNames(item, operation),
        body: operation["requestBody"] !== undefined,
      };
    });
  });
}

/**
 * The operation with this id, or with this method and path.
 *
 * @throws VolantError `not_found`, with those that there are; `invalid` where several have the id
 */
export function findOperation(operations: readonly Operation[], wanted: string): Operation {
  const byId = operations.filter(({ id }) => id === wanted);
  const found = byId.length > 0 ? byId : operations.filter(({ method, path }) => `${method} ${path}` === wanted);
  if (found.length > 1) {
    throw new VolantError("invalid", `the workload has ${found.length} operations ${JSON.stringify(wanted)}`, {
      hint: `say method and path, such as "${found[0]?.method} ${found[0]?.path}"`,
    });
  }
  const [operation] = found;
  if (operation !== undefined) return operation;
  const some = operations.slice(0, 8).map(({ id }) => id);
  throw new VolantError("not_found", `the workload has no operation ${JSON.stringify(wanted)}`, {
    hint:
      some.length === 0
        ? "its OpenAPI document names none"
        : `it has: ${some.join(", ")}${operations.length > some.length ? ", …" : ""}`,
  });
}

/** A query's names and values, each as often as it is given. */
export type QueryPairs = readonly (readonly [name: string, value: string])[];

/**
 * Path and query of a call. Values whose name is a parameter of the path go there, all others into the query.
 *
 * @throws VolantError `invalid` when the path needs a value that was not given
 */
export function operationTarget({ id, path }: Operation, given: QueryPairs): string {
  const used = new Set<string>();
  const filled = path.replaceAll(/\{([^{}]+)\}/g, (_, name: string) => {
    const value = given.find(([key]) => key === name)?.[1];
    if (value === undefined || value === "") {
      throw new VolantError("invalid", `operation ${JSON.stringify(id)} needs a value for ${JSON.stringify(name)}`, {
        hint: `give it with --query ${name}=<value>`,
      });
    }
    // One that stands for the folder above would lead to another path.
    if (value === "." || value === "..") {
      throw new VolantError("invalid", `${JSON.stringify(value)} is no value for ${JSON.stringify(name)} in a path`);
    }
    used.add(name);
    return encodeURIComponent(value);
  });
  const rest = given.filter(([name]) => !used.has(name)).map(([name, value]): [string, string] => [name, value]);
  return rest.length === 0
    ? filled
    : `${filled}${filled.includes("?") ? "&" : "?"}${new URLSearchParams(rest).toString()}`;
}
