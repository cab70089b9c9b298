/** What workloads say of themselves, and the actions that their plugins offer: REST into the workload, through the guest's agent. */
import { VolantError, type Manifest } from "@volant/contract";
import { isOpenApi, openApiSource } from "../model/openapi-source.ts";
import { actionRequest } from "../model/plugin-action.ts";
import type { Store, VmRecord } from "../store/store.ts";
import { findVm } from "./find-vm.ts";
import type { ActionAnswer, ReachUseCases, WorkloadUseCases } from "./use-cases.ts";
import { askWorkload } from "./workload-exchange.ts";

const OPENAPI_TIMEOUT_MS = 10_000;
/** Codes of a workload that is not there, which is no reason to keep back what its manifest says. */
const AWAY: readonly string[] = ["guest_unreachable", "wrong_state", "timeout"];

export interface WorkloadServiceOptions {
  readonly store: Pick<Store, "findPlugin" | "findVm" | "listVms">;
  readonly reach: Pick<ReachUseCases, "workload">;
}

export class WorkloadService implements WorkloadUseCases {
  readonly #options: WorkloadServiceOptions;

  constructor(options: WorkloadServiceOptions) {
    this.#options = options;
  }

  async openApi(name: string, signal: AbortSignal): Promise<string> {
    const { manifest } = this.#find(name).spec;
    const { paths, own } = openApiSource(manifest);
    try {
      for (const path of paths) {
        const found = await this.#document(name, path, signal);
        if (found !== undefined) return found;
      }
    } catch (error) {
      if (own === undefined || !(error instanceof VolantError) || !AWAY.includes(error.code)) throw error;
    }
    if (own !== undefined && isOpenApi(own)) return own;
    throw new VolantError(
      "not_found",
      `the workload of VM "${name}" serves no OpenAPI document at ${paths.join(" or ")}`,
      {
        hint: 'name its path, or give the document itself, in field "openapi" of the manifest',
      },
    );
  }

  async #document(name: string, path: string, signal: AbortSignal): Promise<string | undefined> {
    const workload = this.#options.reach.workload(name);
    const request = { method: "GET", path, timeoutMs: OPENAPI_TIMEOUT_MS, signal };
    const { status, body } = await askWorkload(workload, name, request);
    const text = body.toString("utf8");
    return status === 200 && isOpenApi(text) ? text : undefined;
  }

  async vmAction(
    name: string,
    plugin: string,
    action: string,
    input: unknown,
    signal: AbortSignal,
  ): Promise<ActionAnswer> {
    const { spec } = this.#find(name);
    if (spec.plugin !== plugin) {
      throw new VolantError("not_found", `VM "${name}" does not run plugin "${plugin}" but "${spec.plugin}"`);
    }
    return this.#call(name, spec.manifest, action, input, signal);
  }

  async pluginAction(
    plugin: string,
    action: string,
    input: unknown,
    { vm, signal }: { readonly vm?: string | undefined; readonly signal: AbortSignal },
  ): Promise<ActionAnswer> {
    const { store } = this.#options;
    const found = store.findPlugin(plugin);
    if (found === undefined) {
      throw new VolantError("not_found", `there is no plugin named "${plugin}"`, { hint: "volar plugins list" });
    }
    if (!found.enabled) {
      throw new VolantError("disabled", `plugin "${plugin}" is disabled`, { hint: `volar plugins enable ${plugin}` });
    }
    if (vm !== undefined) return this.vmAction(vm, plugin, action, input, signal);
    // Before a VM is looked for: that the action exists does not depend on one.
    actionRequest(found.manifest, action, input);
    const [first] = store.listVms({ plugin, status: ["running"], limit: 1 }).vms;
    if (first === undefined) {
      throw new VolantError("wrong_state", `no VM of plugin "${plugin}" is running`, {
        hint: `volar vms create <name> --plugin ${plugin}`,
      });
    }
    return this.#call(first.spec.name, first.spec.manifest, action, input, signal);
  }

  async #call(
    vm: string,
    manifest: Manifest,
    action: string,
    input: unknown,
    signal: AbortSignal,
  ): Promise<ActionAnswer> {
    const request = actionRequest(manifest, action, input);
    const answer = await askWorkload(this.#options.reach.workload(vm), vm, { ...request, signal });
    return { vm, ...answer };
  }

  #find(name: string): VmRecord {
    return findVm(this.#options.store, name);
  }
}
