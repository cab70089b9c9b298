/** Reaching into guests: whatever their network mode is, it goes over the link to the agent. */
import type { Duplex, Readable } from "node:stream";
import { ARCHIVE_TYPE, VolantError, type FilesWritten } from "@volant/contract";
import { asCount, parseObject } from "../guest/untrusted.ts";
import { workloadAddress } from "../model/workload-address.ts";
import type { Store } from "../store/store.ts";
import type { Engine } from "./engine.ts";
import type { GuestSession } from "./guest-session.ts";
import { findVm } from "./find-vm.ts";
import type { FileUseCases, GuestUpload, ReachUseCases, Workload } from "./use-cases.ts";

/**
 * So long after its start volantd is still connecting to the agents of VMs that ran before it: it answers meanwhile, and whoever wants into such a guest waits for that.
 * A thousand take two seconds.
 */
export const ADOPTION_MS = 5000;

export interface ReachOptions {
  readonly store: Store;
  readonly engine: Pick<Engine, "lane" | "until">;
  /** Now on the monotonic clock. */
  readonly monotonicMs: () => number;
}

export class ReachService implements ReachUseCases, FileUseCases {
  readonly #store: Store;
  readonly #engine: ReachOptions["engine"];
  readonly #monotonicMs: () => number;
  readonly #adoptedAtMs: number;

  /** To be made when volantd starts. */
  constructor({ store, engine, monotonicMs }: ReachOptions) {
    this.#store = store;
    this.#engine = engine;
    this.#monotonicMs = monotonicMs;
    this.#adoptedAtMs = monotonicMs() + ADOPTION_MS;
  }

  workload(name: string): Workload {
    const record = findVm(this.#store, name);
    const found = workloadAddress(record.spec.manifest.workload.base_url);
    if (found === undefined) {
      throw new VolantError("wrong_state", `the workload of VM "${name}" has no base_url in its manifest`);
    }
    const { address, port, authority } = found;
    const query = new URLSearchParams({ port: String(port), address });
    return {
      authority,
      connect: (signal) => this.#open(name, `/v1/forward?${query.toString().replaceAll("%3A", ":")}`, signal),
    };
  }

  async forward(name: string, port: number, signal: AbortSignal): Promise<Duplex> {
    return this.#open(name, `/v1/forward?port=${port}`, signal);
  }

  /** The same for a VM by its id, whatever it is meant to be: as long as its agent is there, so are its ports. */
  async dial(vmId: number, port: number, signal: AbortSignal): Promise<Duplex> {
    await this.#awaitAdoption(vmId, signal);
    const session = this.#attached(vmId);
    if (session === undefined) throw new VolantError("guest_unreachable", "the guest's agent is not connected");
    return session.open(`/v1/forward?port=${port}`, signal);
  }

  async exec(name: string, signal: AbortSignal): Promise<Duplex> {
    return this.#open(name, "/v1/exec", signal);
  }

  async agentHealth(name: string, signal: AbortSignal): Promise<void> {
    await (await this.#reach(name, signal)).checkHealth(signal);
  }

  async read(name: string, path: string, signal: AbortSignal): Promise<Readable> {
    const query = new URLSearchParams({ path }).toString().replaceAll("+", "%20");
    return (await this.#reach(name, signal)).download(`/v1/files?${query}`, signal);
  }

  async write(name: string, { path, kind, content }: GuestUpload, signal: AbortSignal): Promise<FilesWritten> {
    const query = new URLSearchParams({ path, ...(kind === "archive" ? {} : kind) }).toString().replaceAll("+", "%20");
    const type = kind === "archive" ? ARCHIVE_TYPE : "application/octet-stream";
    const session = await this.#reach(name, signal);
    const answer = parseObject(await session.upload(`/v1/files?${query}`, type, content, signal));
    const [files, bytes, leftOut] = ["files", "bytes", "left_out"].map((field) => asCount(answer?.[field]));
    if (files === undefined || bytes === undefined || leftOut === undefined) {
      throw new VolantError("guest_unreachable", "the guest's agent did not say what it has written");
    }
    return { files, bytes, left_out: leftOut };
  }

  async #open(name: string, path: string, signal: AbortSignal): Promise<Duplex> {
    return (await this.#reach(name, signal)).open(path, signal);
  }

  async #reach(name: string, signal: AbortSignal): Promise<GuestSession> {
    const found = findVm(this.#store, name);
    const record = (await this.#awaitAdoption(found.id, signal)) ? findVm(this.#store, name) : found;
    const session = this.#attached(record.id);
    if (session?.generation === record.generation) return session;
    if (record.status === "stopped" || record.status === "crashed") {
      throw new VolantError("wrong_state", `VM "${name}" is ${record.status}`, { hint: `volar vms start ${name}` });
    }
    throw new VolantError("guest_unreachable", `the agent of VM "${name}" is not connected: it is ${record.status}`);
  }

  #attached(vmId: number): GuestSession | undefined {
    const session = this.#engine.lane(vmId)?.session;
    return session?.agent === undefined ? undefined : session;
  }

  /**
   * Resolves once the agent of a VM that runs is attached, or need be waited for no longer.
   *
   * @returns whether it was waited for, and anything may have changed
   * @throws VolantError `not_ready` when volantd stops; the signal's reason
   */
  async #awaitAdoption(vmId: number, signal: AbortSignal): Promise<boolean> {
    const leftMs = this.#adoptedAtMs - this.#monotonicMs();
    if (leftMs <= 0) return false;
    const done = (): boolean => this.#attached(vmId) !== undefined || this.#store.getVm(vmId)?.status !== "running";
    if (done()) return false;
    try {
      await this.#engine.until(vmId, done, leftMs, "", signal);
    } catch (error) {
      if (!(error instanceof VolantError) || error.code !== "timeout") throw error;
    }
    return true;
  }
}
