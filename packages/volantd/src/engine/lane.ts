import type { DhcpLease } from "../model/dhcp-lease.ts";
import type { HypervisorProcess } from "../runtime/runtime.ts";
import type { Shutdown } from "../plan/observed.ts";
import type { Starting } from "../plan/overdue.ts";
import type { Steady } from "../plan/restart.ts";
import type { GuestSession } from "./guest-session.ts";
import { Waiters } from "./waiters.ts";

export interface StepFailure {
  readonly message: string;
  readonly attempts: number;
  readonly retryAtMs: number;
}

/** What the engine holds of one VM between two looks at it. None of it needs to survive: it is found out again. */
export class Lane {
  readonly vmId: number;
  /** A pass is under way: one VM's steps never run beside each other. */
  busy = false;
  /** Something happened since the last look. */
  dirty = false;
  /** The last pass found nothing to do, nothing to wait for, and nothing wrong. */
  settled = false;
  /** Since when it has been starting, as of the last look. */
  starting: Starting | undefined;
  /** Since when it has been well, as of the last look. */
  steady: Steady | undefined;
  /** When it is started again, on the monotonic clock; reckoned once for each generation that ended, so that no jump of the wall clock moves it. */
  restart: { readonly generation: number; readonly dueAtMs: number } | undefined;
  /** When its guest was last seen to have an excuse for a silence, on the monotonic clock. */
  excusedAtMs: number | undefined;
  session: GuestSession | undefined;
  shutdowns: Shutdown[] = [];
  failure: StepFailure | undefined;
  /** The process of the current generation, as last seen. */
  process: HypervisorProcess | undefined;
  /** What the guest has by DHCP, as of the last pass. */
  lease: DhcpLease | undefined;
  /** {@link leaseText} of the lease that listeners were told of last. */
  toldLease: string | undefined;
  /** How its data goes, as listeners were told last. */
  toldTransport: string | undefined;
  /** What the last process left to say. */
  lastWords: readonly string[] = [];
  timer: NodeJS.Timeout | undefined;
  readonly waiters = new Waiters();

  constructor(vmId: number) {
    this.vmId = vmId;
  }

  /** Told after each pass. */
  notify(): void {
    this.waiters.notify();
  }
}
