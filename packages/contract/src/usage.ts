/** What VMs use of the host now: counters, from two readings of which a rate is reckoned. */
import { Type, type Static } from "typebox";
import { VmName } from "./names.ts";
import { Timestamp } from "./vm.ts";

const closed = { additionalProperties: false } as const;

const count = (description: string) => Type.Integer({ minimum: 0, description });

/** What has gone over a VM's tap since it was made, as the guest sees it. */
export const VmTraffic = Type.Object(
  {
    rx_bytes: count("Received by the guest"),
    tx_bytes: count("Sent by the guest"),
    rx_packets: count("Received by the guest"),
    tx_packets: count("Sent by the guest"),
  },
  closed,
);
export type VmTraffic = Static<typeof VmTraffic>;

/** What one VM's hypervisor uses. */
export const VmUsage = Type.Object(
  {
    id: Type.Integer(),
    name: VmName,
    pid: Type.Integer({ description: "Process id of the hypervisor: another one has counters of its own" }),
    cpu_ms: count("Processor time that it has used since it began, of all its threads"),
    memory_bytes: count("Memory of the host that it has in use now (resident)"),
    cpu_cores: Type.Integer({ description: "What the guest has" }),
    memory_mb: Type.Integer({ description: "MiB that the guest has" }),
    network: Type.Optional(VmTraffic),
  },
  closed,
);
export type VmUsage = Static<typeof VmUsage>;

/** One reading of all VMs that have a hypervisor. */
export const VmUsageReading = Type.Object(
  {
    taken_at: Timestamp,
    clock_ms: Type.Number({
      minimum: 0,
      description: "volantd's own clock, which nobody sets: the time between two readings of the same volantd",
    }),
    vms: Type.Array(VmUsage),
  },
  closed,
);
export type VmUsageReading = Static<typeof VmUsageReading>;
