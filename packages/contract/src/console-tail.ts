import { Type, type Static } from "typebox";

const closed = { additionalProperties: false } as const;

export const DEFAULT_CONSOLE_LINES = 100;

/** The end of what a guest has printed on its serial console. */
export const ConsoleTail = Type.Object(
  {
    name: Type.String({ description: "The VM's" }),
    lines: Type.Array(Type.String(), {
      description: "The oldest first; without escape sequences and control characters, a long one cut",
    }),
  },
  closed,
);
export type ConsoleTail = Static<typeof ConsoleTail>;

export const ConsoleTailQuery = Type.Object(
  {
    lines: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 1000,
        description: `At most so many of the last lines; default ${DEFAULT_CONSOLE_LINES}`,
      }),
    ),
  },
  closed,
);
export type ConsoleTailQuery = Static<typeof ConsoleTailQuery>;
