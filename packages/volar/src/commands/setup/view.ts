/** How people and programs see a plan. */
import { operationCommands, type Progress, type SetupPlan, type UndoResult, type UndoStep } from "@volant/host";

/** One line for one part: `done       bridge vbr0`. */
export function progressLine({ title, outcome, reason }: Progress): string {
  return `${outcome.padEnd(9)}  ${title}${reason === undefined ? "" : ` (${reason})`}`;
}

/** The plan for programs: each part with whether it is needed, and the commands that do it. */
export function planData(plan: SetupPlan): unknown {
  return {
    actions: plan.actions.map(({ title, needed, operations }) => {
      return { title, needed, commands: needed ? operations.flatMap(operationCommands) : [] };
    }),
    refusals: plan.refusals,
    notes: plan.notes,
    unwritten: plan.unwritten,
  };
}

/** The plan as a script that can be pasted into a root shell. */
export function planText(plan: SetupPlan): string {
  const lines = plan.actions.flatMap(({ title, needed, operations }) =>
    needed ? [`# ${title}`, ...operations.flatMap(operationCommands)] : [`# ${title}: unchanged`],
  );
  // As comments: the script does what set-up does here, and set-up does not write these here.
  const unwritten = plan.unwritten.flatMap(({ path, content }) => [
    `# not written here, ${path}:`,
    ...content
      .trimEnd()
      .split("\n")
      .map((line) => `#   ${line}`.trimEnd()),
  ]);
  return [...lines, ...plan.notes.map((note) => `# note: ${note}`), ...unwritten, ""].join("\n");
}

/** What undo did, or would do, for programs. */
export function undoData({ recorded, steps }: UndoResult): unknown {
  return { recorded, steps: steps.map(stepData) };
}

function stepData({ title, outcome, reason, operations }: UndoStep): unknown {
  return {
    title,
    outcome,
    ...(reason === undefined ? {} : { reason }),
    commands: operations.flatMap(operationCommands),
  };
}

/** What undo would do, as a script. */
export function undoText({ steps }: UndoResult): string {
  const lines = steps.flatMap(({ title, outcome, reason, operations }) => [
    `# ${title}${outcome === "undo" ? "" : `: ${outcome}`}${reason === undefined ? "" : ` (${reason})`}`,
    ...operations.flatMap(operationCommands),
  ]);
  return lines.map((line) => `${line}\n`).join("");
}
