import type { UsageUseCases } from "../engine/use-cases.ts";
import type { Handlers } from "./handler.ts";

/** What VMs use. */
export function usageHandlers(usage: UsageUseCases): Handlers<"usage.vms"> {
  return { "usage.vms": async () => ({ body: await usage.read() }) };
}
