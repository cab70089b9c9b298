import { VolantError } from "@volant/contract";
import type { Store, VmRecord } from "../store/store.ts";

/** The VM of a name. @throws VolantError `not_found` */
export function findVm(store: Pick<Store, "findVm">, name: string): VmRecord {
  const record = store.findVm(name);
  if (record === undefined) throw new VolantError("not_found", `there is no VM named "${name}"`);
  return record;
}
