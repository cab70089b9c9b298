import type { Vm, VmStatus } from "@volant/contract";
import type { CommandContext } from "../../context.ts";
import { phaseText } from "../../views/vms.ts";

/** How long `--wait` waits unless told otherwise, in milliseconds. */
export const DEFAULT_WAIT_MS = 120_000;
const REDRAW_MS = 200;

function seconds(sinceMs: number): string {
  return `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`;
}

/** Waits for a VM's status and shows the phases it goes through, with the time they take, where there is a terminal. */
export async function waitWithProgress(
  context: CommandContext,
  name: string,
  status: VmStatus,
  timeoutMs: number,
): Promise<Vm> {
  const { progress } = context;
  const client = await context.client();
  const startedAt = performance.now();
  let phase = "";
  const draw = () => progress.show(`${name}: ${phase} ${seconds(startedAt)}`);
  const timer = setInterval(draw, REDRAW_MS);
  try {
    const vm = await client.vms.wait(name, {
      status,
      timeoutMs,
      onChange: (now) => {
        phase = phaseText(now);
        draw();
      },
    });
    clearInterval(timer);
    progress.finish(`${name}: ${status} after ${seconds(startedAt)}`);
    return vm;
  } finally {
    clearInterval(timer);
  }
}
