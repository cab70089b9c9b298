/** Asking workloads: their OpenAPI document, their plugins' actions, and any request by way of the proxy. */
import type { OpenApiDocument } from "@volant/contract";
import { AGENT_PATH, ANSWERED_BY_HEADER, fillPath } from "@volant/contract/endpoints";
import type { CallOptions } from "./call-options.ts";
import { findOperation, listOperations, operationTarget, type Operation, type QueryPairs } from "./operations.ts";
import type { Answer, Transport } from "./transport.ts";

/** What a workload answered, whatever its status. */
export interface ActionAnswer {
  /** Name of the VM that answered. */
  readonly vm: string;
  readonly status: number;
  readonly contentType: string;
  /** The parsed JSON where it is JSON, else the text. */
  readonly body: unknown;
}

export interface PluginActionOptions extends CallOptions {
  /** The VM to call it on. Default: the first by name that runs. */
  readonly vm?: string | undefined;
}

export interface WorkloadRequest extends CallOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array<ArrayBuffer> | undefined;
}

export interface OperationInput extends CallOptions {
  /** Values of the path's parameters and of the query. */
  readonly query?: QueryPairs;
  /** Sent as it is. */
  readonly body?: string | Uint8Array<ArrayBuffer> | undefined;
  /** Default: application/json. */
  readonly contentType?: string;
}

async function answerOf(response: Answer): Promise<ActionAnswer> {
  const contentType = response.headers.get("content-type") ?? "";
  const text = await response.text();
  const isJson = /^application\/(?:json|[\w.-]+\+json)\b/i.test(contentType);
  const vm = response.headers.get(ANSWERED_BY_HEADER) ?? "";
  return { vm, status: response.status, contentType, body: isJson ? parsed(text) : text };
}

/** A guest may say that its answer is JSON, and lie. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

export class WorkloadClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** The workload's OpenAPI document. @throws VolantError `not_found`, `wrong_state`, `guest_unreachable` */
  async openApi(vm: string, options: CallOptions = {}): Promise<OpenApiDocument> {
    return (await this.#transport.call("vms.openapi", { params: { name: vm }, ...options })).body;
  }

  /** What the document says that the workload can be asked. @throws VolantError as {@link openApi} */
  async operations(vm: string, options: CallOptions = {}): Promise<Operation[]> {
    return listOperations(await this.openApi(vm, options));
  }

  /**
   * Asks for one of those operations. The answer is the workload's own, whatever its status.
   *
   * @throws VolantError as {@link openApi}, and `not_found`, `invalid` for an operation that is none
   */
  async call(vm: string, operation: string, input: OperationInput = {}): Promise<Answer> {
    const { query = [], body, contentType = "application/json", signal } = input;
    const found = findOperation(await this.operations(vm, { signal }), operation);
    const headers: Record<string, string> = body === undefined ? {} : { "content-type": contentType };
    return this.request(vm, operationTarget(found, query), { method: found.method, headers, body, signal });
  }

  /**
   * Sends a request to a path of the workload. The answer is the workload's own, whatever its status.
   *
   * @throws VolantError `not_found`, `wrong_state`, `guest_unreachable`
   */
  request(vm: string, path: string, request: WorkloadRequest = {}): Promise<Answer> {
    // By way of v1/, so that no path of the workload is taken for the agent's own.
    const target = `${fillPath(AGENT_PATH, { name: vm })}/v1${path.startsWith("/") ? path : `/${path}`}`;
    return this.#transport.pass(target, request);
  }

  /** Calls an action of the plugin that a VM runs. @throws VolantError `not_found`, `invalid`, `timeout`, … */
  async action(
    vm: string,
    plugin: string,
    action: string,
    input?: unknown,
    options: CallOptions = {},
  ): Promise<ActionAnswer> {
    const params = { name: vm, plugin, action };
    return answerOf(await this.#transport.request("vms.action", { params, body: input, ...options }));
  }

  /** Calls an action of a plugin on one of its running VMs. @throws VolantError as {@link action}, and `disabled` */
  async pluginAction(
    plugin: string,
    action: string,
    input?: unknown,
    { vm, ...options }: PluginActionOptions = {},
  ): Promise<ActionAnswer> {
    const query = vm === undefined ? {} : { vm };
    return answerOf(
      await this.#transport.request("plugins.action", { params: { plugin, action }, query, body: input, ...options }),
    );
  }
}
