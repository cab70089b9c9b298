import { Type, type Static } from "typebox";

/** One line of what a VM's workload has printed. Control characters are written out (`\u001b`), so that a terminal may show it. */
export const VmLogLine = Type.Object(
  {
    name: Type.String({ description: "The VM's" }),
    stream: Type.Union(
      [Type.Literal("stdout"), Type.Literal("stderr"), Type.Literal("agent"), Type.Literal("volantd")],
      { description: "agent and volantd: remarks on the workload, and on lines that were lost" },
    ),
    line: Type.String(),
    timestamp: Type.String({ format: "date-time" }),
  },
  { additionalProperties: false },
);
export type VmLogLine = Static<typeof VmLogLine>;

export const VmLogQuery = Type.Object(
  {
    tail: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 1_000_000, description: "Only so many of the last lines; all unless given" }),
    ),
    follow: Type.Optional(Type.Boolean({ description: "Go on with new lines, through restarts of the VM" })),
  },
  { additionalProperties: false },
);
export type VmLogQuery = Static<typeof VmLogQuery>;

/** What a log's `Last-Event-ID` looks like: which file, and a place in it. */
export const LOG_CURSOR_PATTERN = "^[0-9a-f]{16}-[0-9]{1,15}$";
