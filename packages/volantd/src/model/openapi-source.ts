/** Where a workload's OpenAPI document may be. Pure. */
import type { Manifest } from "@volant/contract";
import { workloadAddress } from "./workload-address.ts";

export interface OpenApiSource {
  /** Paths of the workload that are asked, in this order. */
  readonly paths: readonly string[];
  /** The document that the manifest itself holds. */
  readonly own: string | undefined;
}

/** Paths under which programs usually serve it. */
const USUAL_PATHS: readonly string[] = ["/openapi.json", "/openapi"];

/**
 * A manifest's `openapi` is a path of the workload, a URL under its `base_url`, or the document itself. Any other URL is nobody's to fetch: volantd fetches none,
 * and asks the workload.
 */
export function openApiSource(manifest: Manifest): OpenApiSource {
  const { openapi = "", workload } = manifest;
  if (openapi.trimStart().startsWith("{")) return { paths: USUAL_PATHS, own: openapi };
  if (openapi.startsWith("/")) {
    const { pathname, search } = new URL(`http://workload${openapi}`);
    return { paths: [`${pathname}${search}`], own: undefined };
  }
  const url = URL.canParse(openapi) ? new URL(openapi) : undefined;
  const isOwn = url !== undefined && url.host === workloadAddress(workload.base_url)?.authority;
  return { paths: isOwn ? [`${url.pathname}${url.search}`] : USUAL_PATHS, own: undefined };
}

/** Whether a text is an OpenAPI (or Swagger) document. */
export function isOpenApi(text: string): boolean {
  try {
    const document = JSON.parse(text) as { openapi?: unknown; swagger?: unknown; paths?: unknown } | null;
    if (typeof document !== "object" || document === null) return false;
    const { openapi, swagger, paths } = document;
    return (typeof openapi === "string" || typeof swagger === "string") && typeof paths === "object" && paths !== null;
  } catch {
    return false;
  }
}
