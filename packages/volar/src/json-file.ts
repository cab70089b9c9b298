import { readFile } from "node:fs/promises";
import { VolantError } from "@volant/contract/errors";
import { fileFailure } from "./file-failure.ts";
import type { CliIo } from "./io.ts";

/** Larger than any request that volantd takes. */
export const MAX_JSON_BYTES = 1_048_576;

async function readInput(io: CliIo): Promise<string> {
  let text = "";
  io.stdin.setEncoding("utf8");
  for await (const part of io.stdin as AsyncIterable<string>) {
    text += part;
    if (text.length > MAX_JSON_BYTES) throw new VolantError("invalid", "standard input holds more than 1 MiB");
  }
  return text;
}

/**
 * The JSON document in a file, or on standard input for `-`.
 *
 * @throws VolantError `invalid`, naming the file and what is wrong with it
 */
export async function readJson(path: string, io: CliIo): Promise<unknown> {
  const shown = path === "-" ? "standard input" : path;
  const text =
    path === "-"
      ? await readInput(io)
      : await readFile(path, "utf8").catch((error: unknown) => {
          throw fileFailure(path, error);
        });
  if (text.length > MAX_JSON_BYTES) throw new VolantError("invalid", `${shown} holds more than 1 MiB`);
  return parseJson(text, shown);
}

/** @param shown where the text is from, for the sentence. @throws VolantError `invalid` */
export function parseJson(text: string, shown: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new VolantError("invalid", `${shown} is not JSON: ${(error as SyntaxError).message}`, { cause: error });
  }
}
