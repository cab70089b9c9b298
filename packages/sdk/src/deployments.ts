import type { CreateDeploymentRequest, Deployment, DeploymentPatch, DeploymentVersion } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import { type CallOptions, type MakeOptions, type OutcomeOptions, waitQuery } from "./call-options.ts";
import { streamItems } from "./events.ts";
import { newKey } from "./retry.ts";
import type { Transport } from "./transport.ts";

export interface DeploymentWaitOptions extends CallOptions {
  /** Milliseconds after which waiting fails with `timeout`. Default: none. */
  readonly timeoutMs?: number | undefined;
  /** Called with the deployment at the first look and whenever its counts or state changed. */
  readonly onChange?: ((deployment: Deployment) => void) | undefined;
}

function phase({ desired_replicas, ready_replicas, updated_replicas, version, rollout }: Deployment): string {
  return JSON.stringify([desired_replicas, ready_replicas, updated_replicas, version, rollout]);
}

/** Why waiting on is pointless, or undefined. */
function hopeless({ name, rollout: { state, reason } }: Deployment): VolantError | undefined {
  if (state === "deleting") return new VolantError("wrong_state", `deployment "${name}" is being deleted`);
  if (state === "paused") {
    return new VolantError("wrong_state", `the roll-out of deployment "${name}" is paused`, {
      hint: `volar deployments resume ${name}`,
    });
  }
  if (state !== "failed") return undefined;
  return new VolantError("wrong_state", `the roll-out of deployment "${name}" has stopped: ${reason ?? "no reason"}`, {
    hint: `volar deployments rollback ${name} <version> goes back, volar deployments resume ${name} tries again`,
  });
}

export class DeploymentClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** By name. */
  async list(options: CallOptions = {}): Promise<readonly Deployment[]> {
    return (await this.#transport.call("deployments.list", options)).body;
  }

  /** @throws VolantError `not_found` */
  async get(name: string, options: CallOptions = {}): Promise<Deployment> {
    return (await this.#transport.call("deployments.get", { params: { name }, ...options })).body;
  }

  /** The deployment as recorded; {@link wait} tells when its replicas are ready. @throws VolantError `invalid`, `exists`, `not_found`, … */
  async create(request: CreateDeploymentRequest, { signal, key = newKey() }: MakeOptions = {}): Promise<Deployment> {
    return (await this.#transport.call("deployments.create", { body: request, signal, key })).body;
  }

  /** Changes what is given. A changed configuration is rolled out. @throws VolantError `not_found`, `invalid`, `exists`, `wrong_state`, … */
  async update(name: string, patch: DeploymentPatch, options: CallOptions = {}): Promise<Deployment> {
    return (await this.#transport.call("deployments.patch", { params: { name }, body: patch, ...options })).body;
  }

  /** @throws VolantError `not_found`, `exists` when a VM has the name of a replica that this needs */
  async scale(name: string, replicas: number, options: CallOptions = {}): Promise<Deployment> {
    return this.update(name, { replicas }, options);
  }

  /** A roll-out goes no further. @throws VolantError `not_found` */
  async pause(name: string, options: CallOptions = {}): Promise<Deployment> {
    return this.update(name, { paused: true }, options);
  }

  /** A roll-out goes on, after a pause or after it has failed. @throws VolantError `not_found` */
  async resume(name: string, options: CallOptions = {}): Promise<Deployment> {
    return this.update(name, { paused: false }, options);
  }

  /** Rolls a version of the history out again. @throws VolantError `not_found` */
  async rollback(name: string, version: number, options: CallOptions = {}): Promise<Deployment> {
    return (await this.#transport.call("deployments.rollback", { params: { name }, body: { version }, ...options }))
      .body;
  }

  /** Versions of its configuration, newest first. @throws VolantError `not_found` */
  async history(
    name: string,
    { limit, ...options }: CallOptions & { readonly limit?: number | undefined } = {},
  ): Promise<readonly DeploymentVersion[]> {
    const query = limit === undefined ? {} : { limit };
    return (await this.#transport.call("deployments.history", { params: { name }, query, ...options })).body;
  }

  /** Resolves when nothing of any replica is left. @throws VolantError `not_found`, `timeout` */
  async delete(name: string, options: OutcomeOptions = {}): Promise<void> {
    const { waitMs = 0, signal } = options;
    const input = { params: { name }, query: waitQuery(options), signal };
    const { status, body } = await this.#transport.call("deployments.delete", input);
    if (status !== 202 || waitMs === 0 || body === undefined) return;
    throw notInTime(name, "gone", waitMs, body);
  }

  /**
   * Waits until all replicas have the version that is wanted and are ready.
   *
   * @throws VolantError `not_found`, `wrong_state` when the roll-out has failed or is paused, `timeout`
   */
  async wait(name: string, options: DeploymentWaitOptions = {}): Promise<Deployment> {
    const { timeoutMs, onChange } = options;
    const deadline = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs);
    const signals = [options.signal, deadline].filter((signal) => signal !== undefined);
    const signal = signals.length === 0 ? undefined : AbortSignal.any(signals);
    let last: Deployment | undefined;
    try {
      for await (const item of streamItems(this.#transport, { signal })) {
        if (item.kind === "event" && (item.event.name !== name || !item.event.type.startsWith("DEPLOYMENT_"))) continue;
        const now = await this.get(name, { signal });
        if (last === undefined || phase(last) !== phase(now)) onChange?.(now);
        last = now;
        const isReady = now.ready_replicas === now.desired_replicas;
        if (now.rollout.state === "complete" && isReady) return now;
        const error = hopeless(now);
        if (error !== undefined) throw error;
      }
    } catch (error) {
      if (deadline?.aborted !== true || options.signal?.aborted === true) throw error;
      throw notInTime(name, "ready", timeoutMs ?? 0, last, error);
    }
    throw new Error("the event stream ended, which it never does by itself");
  }
}

function notInTime(
  name: string,
  goal: "ready" | "gone",
  timeoutMs: number,
  last: Deployment | undefined,
  cause?: unknown,
): VolantError {
  const seconds = Math.round(timeoutMs / 100) / 10;
  const { desired_replicas: wanted, ready_replicas: ready, rollout } = last ?? {};
  const now = last === undefined ? "its state is unknown" : `${ready} of ${wanted} replicas are ready`;
  const why = rollout?.reason === undefined || rollout.reason === now ? "" : ` (${rollout.reason})`;
  return new VolantError("timeout", `deployment "${name}" is not ${goal} after ${seconds} s: ${now}${why}`, { cause });
}
