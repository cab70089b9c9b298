import { VolantError } from "@volant/contract/errors";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import { ProgramExit } from "../../failure.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { printable } from "../../table.ts";

/** One side of a copy. */
export type CopyEnd =
  | { readonly kind: "guest"; readonly vm: string; readonly path: string }
  | { readonly kind: "local"; readonly path: string }
  | { readonly kind: "standard" };

/** A VM's name and a colon begin a path in a guest; whatever holds a slash before its first colon is a path of this machine. Pure. */
export function parseCopyEnd(text: string): CopyEnd {
  if (text === "-") return { kind: "standard" };
  const match = /^([A-Za-z0-9][A-Za-z0-9._-]*):(.*)$/s.exec(text);
  if (match === null) return { kind: "local", path: text };
  const [, vm = "", path = ""] = match;
  if (path === "") throw new VolantError("invalid", `"${text}" names no path in the guest, such as ${vm}:/etc/hosts`);
  // As for programs, / is where a path in a guest begins.
  return { kind: "guest", vm, path: path.startsWith("/") ? path : `/${path}` };
}

function sizeText(bytes: number): string {
  if (bytes < 1024) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

function copiedText({ from, to, files, bytes }: CopyResult): string {
  return printable(`${from} copied to ${to}: ${files} ${files === 1 ? "file" : "files"}, ${sizeText(bytes)}`) + "\n";
}

interface CopyResult {
  readonly from: string;
  readonly to: string;
  readonly files: number;
  readonly bytes: number;
  readonly left_out: readonly string[];
}

/** What shells answer for a program that a signal ended (POSIX, Exit Status for Commands): 128 and its number. */
const EXIT_BY_SIGNAL = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** Copies a file or a directory into or out of a guest. A signal breaks the copy off, and what was only half there is taken away first. */
export async function copyFiles(context: CommandContext, from: string, to: string): Promise<Result | undefined> {
  const interrupted = new AbortController();
  let exitCode: number | undefined;
  const listeners = Object.entries(EXIT_BY_SIGNAL).map(([name, code]) => {
    const stop = () => {
      exitCode ??= code;
      interrupted.abort();
    };
    process.once(name, stop);
    return () => process.off(name, stop);
  });
  try {
    return await copy(context, from, to, interrupted.signal);
  } catch (error) {
    if (exitCode === undefined) throw error;
    context.io.stdin.destroy();
    throw new ProgramExit(exitCode);
  } finally {
    for (const remove of listeners) remove();
  }
}

async function copy(
  context: CommandContext,
  from: string,
  to: string,
  signal: AbortSignal,
): Promise<Result | undefined> {
  const { io, progress } = context;
  const [source, target] = [parseCopyEnd(from), parseCopyEnd(to)];
  const { copyFromGuest, copyToGuest, readGuestFile } = await import("@volant/sdk/node");
  const { files } = await context.client();
  const leftOut: string[] = [];
  let shownAt = 0;
  const options = {
    signal,
    onProgress: (bytes: number) => {
      // Often enough to be seen to move.
      if (performance.now() - shownAt < 100) return;
      shownAt = performance.now();
      progress.show(`${from} to ${to}: ${sizeText(bytes)}`);
    },
    onLeftOut: (sentence: string) => {
      progress.clear();
      leftOut.push(sentence);
      io.stderr.write(`volar: left out: ${printable(sentence)}\n`);
    },
  };
  const finish = ({ files: count, bytes }: { readonly files: number; readonly bytes: number }) =>
    result({ from, to, files: count, bytes, left_out: leftOut }, copiedText);

  if (source.kind === "guest" && target.kind === "local") {
    return finish(await copyFromGuest(files, { vm: source.vm, path: source.path, to: target.path }, options));
  }
  if (source.kind === "local" && target.kind === "guest") {
    return finish(await copyToGuest(files, { from: source.path, vm: target.vm, path: target.path }, options));
  }
  if (source.kind === "guest" && target.kind === "standard") {
    await readGuestFile(files, { vm: source.vm, path: source.path, to: io.stdout }, { signal });
    return undefined;
  }
  if (source.kind === "standard" && target.kind === "guest") {
    const file = io.stdin as AsyncIterable<Uint8Array>;
    return finish(await files.write(target.vm, target.path, { file }, { signal }));
  }
  if (source.kind === "guest") {
    throw new VolantError("invalid", "both sides are in guests: copy to this machine first, then from it");
  }
  throw new VolantError("invalid", "neither side is in a guest: name one of them <vm>:<path>", {
    hint: `a file of this machine whose name has a colon is written ./${printable(from)}`,
  });
}

export function registerCp(vms: Command, io: CliIo): void {
  vms
    .command("cp")
    .description("copy a file or a directory into a guest or out of it; - is standard input or output, for one file")
    .argument("<source>", "<vm>:<path>, a path of this machine, or -")
    .argument("<target>", "the same; a directory that exists gets the copy under its own name")
    .action(action(io, copyFiles));
}
