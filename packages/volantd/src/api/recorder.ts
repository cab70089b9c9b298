import { auditEntry, isRefusal, type AuditEntry, type Recorder } from "./audit-entry.ts";
import { RateLimit } from "./rate-limit.ts";

/** Where lines of the audit log go. */
export interface AuditSink {
  append(fields: object): void;
}

/** So many refusals are told one by one: who is refused must not be able to push what others did out of the log. */
const REFUSALS = { perSecond: 1, burst: 100 } as const;

/** A recorder that writes to the audit log. Of many refusals, one line in a while says how many were not told. */
export function createRecorder(sink: AuditSink, isKey: (text: string) => boolean, nowMs: () => number): Recorder {
  const refusals = new RateLimit(REFUSALS, nowMs);
  let untold = 0;
  return (recorded) => {
    if (isRefusal(recorded) && refusals.take("all") > 0) {
      untold += 1;
      return;
    }
    const entry: AuditEntry | undefined = auditEntry(recorded, isKey);
    if (entry === undefined) return;
    sink.append(untold === 0 ? entry : { ...entry, refusals_untold: untold });
    untold = 0;
  };
}
