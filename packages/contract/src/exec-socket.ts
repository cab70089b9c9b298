import { Type, type Static } from "typebox";
import { MAX_WINDOW_BYTES, MIN_WINDOW_BYTES } from "./byte-window.ts";

export const ExecSocketQuery = Type.Object(
  {
    window: Type.Optional(
      Type.Integer({
        minimum: MIN_WINDOW_BYTES,
        maximum: MAX_WINDOW_BYTES,
        description:
          "Bytes that either end may send beyond what the other one says it has read, for clients whose WebSockets hold nothing back; without it TCP alone does",
      }),
    ),
  },
  { additionalProperties: false },
);
export type ExecSocketQuery = Static<typeof ExecSocketQuery>;
