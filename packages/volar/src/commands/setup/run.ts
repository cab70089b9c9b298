/** What `volar setup` does. */
import { VolantError } from "@volant/contract/errors";
import { checkSettings, LinuxHost, previewSetup, refusalError, runSetup, undoSetup } from "@volant/host";
import type { CommandContext } from "../../context.ts";
import { type Result, result } from "../../output.ts";
import { type SetupFlags, setupRequest, workDirSetting } from "./flags.ts";
import { planData, planText, progressLine, undoData, undoText } from "./view.ts";

/**
 * Sets up, undoes, or shows what either would do. For people each part is a line as soon as it is done; for programs the whole is one
 * value at the end.
 */
export async function runSetupCommand(context: CommandContext, flags: SetupFlags): Promise<Result | undefined> {
  if (process.platform !== "linux") {
    throw new VolantError("not_supported", `volar setup sets up Linux hosts, and this is ${process.platform}`, {
      hint: "volantd runs here without it: it then uses taps that you make by hand",
    });
  }
  return flags.undo === true ? await undo(context, flags) : await setUp(context, flags);
}

function lineWriter({ io, tells }: CommandContext): (line: string) => void {
  return (line) => {
    if (tells) io.stdout.write(`${line}\n`);
  };
}

async function setUp(context: CommandContext, flags: SetupFlags): Promise<Result | undefined> {
  const settings = checkSettings(setupRequest(flags, context.io.env));
  const host = new LinuxHost(settings.workDir);
  if (flags.dryRun === true) {
    const plan = await previewSetup(host, settings);
    const refused = refusalError(plan.refusals);
    return result(planData(plan), () => planText(plan), refused === undefined ? [] : [refused]);
  }
  const write = lineWriter(context);
  const plan = await runSetup(host, settings, { onProgress: (progress) => write(progressLine(progress)) });
  for (const note of plan.notes) write(`note: ${note}`);
  return context.output === "table" ? undefined : result(planData(plan), () => "");
}

async function undo(context: CommandContext, flags: SetupFlags): Promise<Result | undefined> {
  const host = new LinuxHost(workDirSetting(flags, context.io.env));
  const dryRun = flags.dryRun === true;
  const write = lineWriter(context);
  const done = await undoSetup(host, { dryRun, onProgress: (progress) => write(progressLine(progress)) });
  if (!done.recorded) write("nothing to undo: no set-up is recorded");
  if (context.output !== "table" || dryRun) return result(undoData(done), () => undoText(done));
  return undefined;
}
