/** What the doctor says of the host when volantd starts: the part that costs milliseconds and runs no program. */
import { diagnose, observeForDoctor } from "@volant/host";
import type { Config } from "../config.ts";
import type { Log } from "../log.ts";
import { formatAddress, formatSubnet } from "../model/address.ts";
import type { DataChoice } from "../runtime/vsock/choice.ts";
import type { Store } from "../store/store.ts";

export interface HostReportOptions {
  readonly config: Config;
  readonly store: Pick<Store, "installation" | "vmIds" | "getVm">;
  /** How data reaches guests. */
  readonly data: DataChoice;
  readonly log: Pick<Log, "warn">;
}

/** One line of the log for each thing that is wrong. Never keeps volantd from starting. */
export async function reportHost({ config, store, data, log }: HostReportOptions): Promise<void> {
  const { bridge, pool } = config.managed;
  const subnet = formatSubnet(pool.subnet);
  const hostIp = formatAddress(pool.gateway);
  const { workDir, runtimeDir, bzImagePath: bzImage, hypervisor } = config;
  try {
    const vmIds = [...store.vmIds()];
    const leased = vmIds.flatMap((id) => {
      const address = store.getVm(id)?.address;
      return address === undefined ? [] : formatAddress(address);
    });
    const view = await observeForDoctor({
      settings: { bridge, subnet, hostIp, workDir, runtimeDir, bzImage },
      volantd: {
        answers: true,
        installation: store.installation,
        bridge,
        subnet,
        vmIds,
        leased,
        transport: { ...data, data: data.transport },
      },
      hypervisor,
      cheap: true,
    });
    for (const { check, level, sentence, fix } of diagnose(view)) {
      if (level === "warning" || level === "broken") log.warn({ check, verdict: level, fix }, sentence);
    }
  } catch (error) {
    log.warn({ error }, "the host can't be checked");
  }
}
