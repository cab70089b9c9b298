import { stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Manifest, Plugin } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import type { VolantClient } from "@volant/sdk";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import { fileFailure } from "../../file-failure.ts";
import type { CliIo } from "../../io.ts";
import { readJson } from "../../json-file.ts";
import { result, type Result } from "../../output.ts";
import { checkFile, localFiles, readWithProgress, withFiles, type CheckedFile } from "../../plugin-files.ts";

interface InstallOptions {
  readonly replace?: boolean;
}

async function manifestPath(given: string): Promise<string> {
  if (/^https?:\/\//i.test(given)) {
    throw new VolantError("not_supported", "installing from an address is not supported yet", {
      hint: "download the manifest and its files, then install the file",
    });
  }
  const path = resolve(given);
  const found = await stat(path).catch((error: unknown) => {
    throw fileFailure(given, error);
  });
  return found.isDirectory() ? join(path, "manifest.json") : path;
}

async function readManifest(path: string, io: CliIo): Promise<Manifest> {
  const document = await readJson(path, io);
  // The schemas take longest of all to load, and only this command needs them.
  const { checkSchema, Manifest: schema } = await import("@volant/contract");
  return checkSchema(schema, document, `manifest ${path}`);
}

async function installed(client: VolantClient, name: string): Promise<Plugin | undefined> {
  try {
    return await client.plugins.get(name);
  } catch (error) {
    if (error instanceof VolantError && error.code === "not_found") return undefined;
    throw error;
  }
}

async function handOver(context: CommandContext, client: VolantClient, files: readonly CheckedFile[]): Promise<void> {
  for (const file of files) {
    if (await client.images.has(file.actual)) continue;
    const show = (percent: number) => context.progress.show(`handing over ${basename(file.path)} ${percent} %`);
    await client.images.put(file.actual, readWithProgress(file, show));
  }
}

/** Puts the new plugin in the old one's place; when that fails, the old one is put back. */
async function replace(client: VolantClient, old: Plugin, manifest: Manifest): Promise<Plugin> {
  await client.plugins.remove(old.name);
  try {
    return await client.plugins.install(manifest);
  } catch (error) {
    await client.plugins.install(old.manifest);
    throw error;
  }
}

/**
 * Installs a plugin from its manifest: everything that can be wrong on this side is found before anything is sent, files go over by digest where
 * volantd lacks them, the manifest last.
 */
export async function installPlugin(context: CommandContext, given: string, options: InstallOptions): Promise<Result> {
  const path = await manifestPath(given);
  const written = await readManifest(path, context.io);
  const files: CheckedFile[] = [];
  for (const file of localFiles(written, dirname(path))) {
    files.push(
      await checkFile(file, (percent) => context.progress.show(`reading ${basename(file.path)} ${percent} %`)),
    );
  }
  const manifest = withFiles(written, files);
  const client = await context.client();
  const old = await installed(client, manifest.name);
  if (old !== undefined && isDeepStrictEqual(old.manifest, manifest) && options.replace === true) {
    return result(old, ({ name, version }) => `plugin ${name} ${version} is installed already\n`);
  }
  if (old !== undefined && options.replace !== true) {
    throw new VolantError("exists", `a plugin "${manifest.name}" exists already, version ${old.version}`, {
      hint: "--replace puts the new one in its place",
    });
  }
  await handOver(context, client, files);
  const plugin = old === undefined ? await client.plugins.install(manifest) : await replace(client, old, manifest);
  return result(plugin, ({ name, version }) => `plugin ${name} ${version} installed\n`);
}

export function registerInstall(plugins: Command, io: CliIo): void {
  plugins
    .command("install")
    .description("install a plugin from its manifest, a JSON file or the folder that holds manifest.json")
    .argument("<path>")
    .option("--replace", "put it in the place of an installed plugin of this name")
    .action(action(io, installPlugin));
}
