import { checkSchema, VmName, VolantError } from "@volant/contract";

/** The VM's name in a URL's path, which may be percent-encoded. @throws VolantError `invalid` */
export function readVmName(encoded: string): string {
  let name: string;
  try {
    name = decodeURIComponent(encoded);
  } catch {
    throw new VolantError("invalid", "the request path is not a valid URL path");
  }
  return checkSchema(VmName, name, "path");
}
