/** The v1 envelope, beside which the Model Context Protocol itself is served. */
import { Type, type Static } from "typebox";

const closed = { additionalProperties: false } as const;

export const McpCommand = Type.Object(
  {
    command: Type.String({
      minLength: 1,
      maxLength: 128,
      description: "volant.vms.list and so on; volant.system.get_capabilities lists them",
    }),
    params: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), { description: "What the command needs; docs/mcp.md" }),
    ),
  },
  closed,
);
export type McpCommand = Static<typeof McpCommand>;

export const McpCommandResult = Type.Object(
  {
    command: Type.String({ description: "The command by its whole name" }),
    result: Type.Unknown({ description: "What the command's route answers; null where that is nothing" }),
  },
  closed,
);
export type McpCommandResult = Static<typeof McpCommandResult>;
