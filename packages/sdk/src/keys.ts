import type { ApiKey, CreateApiKeyRequest, CreatedApiKey } from "@volant/contract";
import type { CallOptions } from "./call-options.ts";
import type { Transport } from "./transport.ts";

/** API keys. All of it needs a key with the scope `admin`, or root's Unix socket. */
export class KeyClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Makes a key, which is in this answer and in no other. @throws VolantError `exists` */
  async create(request: CreateApiKeyRequest, options: CallOptions = {}): Promise<CreatedApiKey> {
    return (await this.#transport.call("keys.create", { body: request, ...options })).body;
  }

  /** By name, without the keys themselves. */
  async list(options: CallOptions = {}): Promise<readonly ApiKey[]> {
    return (await this.#transport.call("keys.list", options)).body;
  }

  /** From now on it opens nothing, and what goes on with it ends. @throws VolantError `not_found` */
  async revoke(name: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.call("keys.revoke", { params: { key: name }, ...options });
  }
}
