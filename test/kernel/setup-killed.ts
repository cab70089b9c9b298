/**
 * A set-up or an undo that ends by SIGKILL before its effect of the given number; it exits 0 when it has fewer effects.
 *
 *     node setup-killed.ts setup|undo <work folder> <effects that may happen> [settings to change, as JSON]
 */
import { LinuxHost, type Operation, runSetup, type SetupRecord, type SetupRequest, undoSetup } from "@volant/host";
import { scratchSettings } from "./setup-state.ts";

const [mode, workDir = "", effects = "0", change = "{}"] = process.argv.slice(2);
let left = Number(effects);

function spend(): void {
  if (left === 0) process.kill(process.pid, "SIGKILL");
  left -= 1;
}

class MortalHost extends LinuxHost {
  override async execute(operation: Operation): Promise<void> {
    spend();
    await super.execute(operation);
  }

  override async writeRecord(record: SetupRecord): Promise<void> {
    spend();
    await super.writeRecord(record);
  }

  override async removeRecord(createdFolders: readonly string[]): Promise<void> {
    spend();
    await super.removeRecord(createdFolders);
  }
}

const host = new MortalHost(workDir);
if (mode === "undo") await undoSetup(host);
else await runSetup(host, scratchSettings(workDir, JSON.parse(change) as Partial<SetupRequest>));
