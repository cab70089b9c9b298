/** Running a program in a guest to its end in one request, for clients that can't hold a stream; exec-frames.ts has the stream. */
import { Type, type Static } from "typebox";
import { Environment } from "./manifest.ts";

const closed = { additionalProperties: false } as const;

export const DEFAULT_RUN_TIMEOUT_MS = 30_000;
export const MAX_RUN_TIMEOUT_MS = 600_000;
/** Of each of the two streams. */
export const DEFAULT_RUN_OUTPUT_BYTES = 65_536;
export const MAX_RUN_OUTPUT_BYTES = 1_048_576;

export const RunRequest = Type.Object(
  {
    command: Type.Array(Type.String({ maxLength: 65_536 }), {
      minItems: 1,
      maxItems: 1024,
      description: "The program, looked for in PATH unless it has a slash, and its arguments. No shell reads it",
    }),
    env: Type.Optional(Environment),
    cwd: Type.Optional(Type.String({ minLength: 1, maxLength: 4095, description: "Where in the guest; default /" })),
    stdin: Type.Optional(Type.String({ maxLength: 524_288, description: "Standard input; default: none" })),
    timeout_ms: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: MAX_RUN_TIMEOUT_MS,
        description: `The program is ended after so long; default ${DEFAULT_RUN_TIMEOUT_MS}`,
      }),
    ),
    max_output_bytes: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: MAX_RUN_OUTPUT_BYTES,
        description: `How much of each output stream is kept, from its beginning; default ${DEFAULT_RUN_OUTPUT_BYTES}`,
      }),
    ),
  },
  closed,
);
export type RunRequest = Static<typeof RunRequest>;

export const RunResult = Type.Object(
  {
    exit_code: Type.Optional(Type.Integer({ description: "Absent where it did not end by itself" })),
    signal: Type.Optional(Type.Integer({ description: "Number of the signal that ended it" })),
    timed_out: Type.Boolean({ description: "It was ended since its time was up" }),
    stdout: Type.String({ description: "As UTF-8; what is none is replaced" }),
    stderr: Type.String(),
    truncated: Type.Boolean({ description: "There was more output than is here" }),
  },
  closed,
);
export type RunResult = Static<typeof RunResult>;
