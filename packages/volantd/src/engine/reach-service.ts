/** Reaching into guests: whatever their network mode is, it goes over the link to the agent. */
import type { Duplex, Readable } from "node:stream";
import { ARCHIVE_TYPE, VolantError, type FilesWritten } from "@volant/contract";
import { asCount, parseObject } from "../guest/untrusted.ts";
import { workloadAddress } from "../model/workload-address.ts";
import type { Store, VmRecord } from "../store/store.ts";
import type { Engine } from "./engine.ts";
import type { GuestSession } from "./guest-session.ts";
import { findVm } from "./find-vm.ts";
import type { FileUseCases, GuestUpload, ReachUseCases, Workload } from "./use-cases.ts";

export class ReachService implements ReachUseCases, FileUseCases {
  readonly #store: Store;
  readonly #engine: Pick<Engine, "lane">;

  constructor(options: { readonly store: Store; readonly engine: Pick<Engine, "lane"> }) {
    this.#store = options.store;
    this.#engine = options.engine;
  }

  workload(name: string): Workload {
    const { record, session } = this.#reach(name);
    const found = workloadAddress(record.spec.manifest.workload.base_url);
    if (found === undefined) {
      throw new VolantError("wrong_state", `the workload of VM "${name}" has no base_url in its manifest`);
    }
    const { address, port, authority } = found;
    const query = new URLSearchParams({ port: String(port), address });
    return {
      authority,
      connect: (signal) => session.open(`/v1/forward?${query.toString().replaceAll("%3A", ":")}`, signal),
    };
  }

  async forward(name: string, port: number, signal: AbortSignal): Promise<Duplex> {
    return this.#reach(name).session.open(`/v1/forward?port=${port}`, signal);
  }

  /** The same for a VM by its id, whatever it is meant to be: as long as its agent is there, so are its ports. */
  async dial(vmId: number, port: number, signal: AbortSignal): Promise<Duplex> {
    const session = this.#engine.lane(vmId)?.session;
    if (session?.agent === undefined) throw new VolantError("guest_unreachable", "the guest's agent is not connected");
    return session.open(`/v1/forward?port=${port}`, signal);
  }

  async exec(name: string, signal: AbortSignal): Promise<Duplex> {
    return this.#reach(name).session.open("/v1/exec", signal);
  }

  async agentHealth(name: string, signal: AbortSignal): Promise<void> {
    await this.#reach(name).session.checkHealth(signal);
  }

  async read(name: string, path: string, signal: AbortSignal): Promise<Readable> {
    const query = new URLSearchParams({ path }).toString().replaceAll("+", "%20");
    return this.#reach(name).session.download(`/v1/files?${query}`, signal);
  }

  async write(name: string, { path, kind, content }: GuestUpload, signal: AbortSignal): Promise<FilesWritten> {
    const query = new URLSearchParams({ path, ...(kind === "archive" ? {} : kind) }).toString().replaceAll("+", "%20");
    const type = kind === "archive" ? ARCHIVE_TYPE : "application/octet-stream";
    const answer = parseObject(await this.#reach(name).session.upload(`/v1/files?${query}`, type, content, signal));
    const [files, bytes, leftOut] = ["files", "bytes", "left_out"].map((field) => asCount(answer?.[field]));
    if (files === undefined || bytes === undefined || leftOut === undefined) {
      throw new VolantError("guest_unreachable", "the guest's agent did not say what it has written");
    }
    return { files, bytes, left_out: leftOut };
  }

  #reach(name: string): { readonly record: VmRecord; readonly session: GuestSession } {
    const record = findVm(this.#store, name);
    const session = this.#engine.lane(record.id)?.session;
    if (session?.agent !== undefined && session.generation === record.generation) return { record, session };
    if (record.status === "stopped" || record.status === "crashed") {
      throw new VolantError("wrong_state", `VM "${name}" is ${record.status}`, { hint: `volar vms start ${name}` });
    }
    throw new VolantError("guest_unreachable", `the agent of VM "${name}" is not connected: it is ${record.status}`);
  }
}
