/** Files of the web, got by volar and not by volantd, which fetches nothing. */
import { randomBytes } from "node:crypto";
import { open, unlink, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { VolantError } from "@volant/contract/errors";
import { writeFailure } from "./file-failure.ts";

export interface WebFile {
  readonly sizeBytes: number;
  /** The content, from its beginning. */
  readonly read: () => AsyncIterable<Uint8Array>;
}

function reason(error: unknown): string {
  const { message, cause } = error as Error;
  const detail = cause instanceof Error && cause.message !== "" ? cause.message : message;
  return (cause as NodeJS.ErrnoException | undefined)?.code ?? detail;
}

/** fetch() reports every failure of the network as a TypeError. */
function webFailure(address: string, error: unknown): unknown {
  if (!(error instanceof TypeError)) return error;
  return new VolantError("not_ready", `cannot get ${address}: ${reason(error)}`, {
    hint: "see whether this machine reaches it, or get the file by other means and name it by its path",
    cause: error,
  });
}

async function request(address: string): Promise<Response> {
  const response = await fetch(address).catch((error: unknown) => {
    throw webFailure(address, error);
  });
  if (response.ok) return response;
  await response.body?.cancel();
  throw new VolantError("invalid", `cannot get ${address}: its server answers ${response.status}`, {
    hint: "correct the address",
  });
}

/** A small text. @throws VolantError `invalid`, `not_ready` */
export async function fetchText(address: string, limitBytes: number): Promise<string> {
  const response = await request(address);
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of response.body ?? []) {
      size += part.length;
      if (size > limitBytes) throw new VolantError("invalid", `${address} holds more than ${limitBytes} bytes`);
      parts.push(part);
    }
  } catch (error) {
    throw webFailure(address, error);
  }
  return Buffer.concat(parts).toString("utf8");
}

/** A file without a name: nothing of it is left, however volar ends. */
async function openNameless(): Promise<FileHandle> {
  const path = join(tmpdir(), `volar-${randomBytes(12).toString("hex")}`);
  const file = await open(path, "wx+", 0o600).catch((error: unknown) => {
    throw writeFailure(path, error);
  });
  await unlink(path);
  return file;
}

/** Gets a file. @throws VolantError `invalid`, `not_ready` */
export async function download(address: string, onProgress: (percent: number) => void): Promise<WebFile> {
  const response = await request(address);
  const expected = Number(response.headers.get("content-length") ?? 0);
  const file = await openNameless();
  let sizeBytes = 0;
  try {
    for await (const part of response.body ?? []) {
      await file.writeFile(part);
      sizeBytes += part.length;
      if (expected > 0) onProgress(Math.min(100, Math.floor((sizeBytes / expected) * 100)));
    }
  } catch (error) {
    await file.close();
    throw error instanceof TypeError ? webFailure(address, error) : writeFailure(tmpdir(), error);
  }
  // Open until volar ends, as it may be read twice.
  return { sizeBytes, read: () => file.createReadStream({ start: 0, autoClose: false }) as AsyncIterable<Uint8Array> };
}
