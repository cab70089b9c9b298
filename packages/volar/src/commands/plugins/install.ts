import { stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import type { Manifest, Plugin } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import type { VolantClient } from "@volant/sdk";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import { fileFailure } from "../../file-failure.ts";
import type { CliIo } from "../../io.ts";
import { checkFiles, handOver } from "../../hand-over.ts";
import { MAX_JSON_BYTES, parseJson, readJson } from "../../json-file.ts";
import { result, type Result } from "../../output.ts";
import { findFiles, isWebAddress, openApiAddress, withFiles, type Origin } from "../../plugin-files.ts";

interface InstallOptions {
  readonly replace?: boolean;
}

/** The manifest as it is written, and where what it names is meant from. A folder, or an address that ends in /, holds manifest.json. */
async function readManifest(
  given: string,
  io: CliIo,
): Promise<{ readonly written: Manifest; readonly origin: Origin }> {
  const found = isWebAddress(given) ? await manifestOfWeb(given) : await manifestOfFile(given, io);
  // The schemas take longest of all to load, and only this command needs them.
  const { checkSchema, ManifestFile } = await import("@volant/contract");
  // An editor's word, and none of the plugin's: volantd knows no such field.
  const { $schema: _, ...written } = checkSchema(ManifestFile, found.document, `manifest ${found.shown}`);
  return { written, origin: found.origin };
}

interface FoundDocument {
  readonly document: unknown;
  readonly shown: string;
  readonly origin: Origin;
}

async function manifestOfWeb(given: string): Promise<FoundDocument> {
  if (!URL.canParse(given)) throw new VolantError("invalid", `${JSON.stringify(given)} is no address of the web`);
  const { fetchText } = await import("../../web-files.ts");
  const webAddress = new URL(given.endsWith("/") ? "manifest.json" : "", given).href;
  const document = parseJson(await fetchText(webAddress, MAX_JSON_BYTES), webAddress);
  return { document, shown: webAddress, origin: { webAddress } };
}

async function manifestOfFile(given: string, io: CliIo): Promise<FoundDocument> {
  const path = resolve(given);
  const found = await stat(path).catch((error: unknown) => {
    throw fileFailure(given, error);
  });
  const file = found.isDirectory() ? join(path, "manifest.json") : path;
  return { document: await readJson(file, io), shown: file, origin: { folder: dirname(file) } };
}

async function readDocument(address: string, io: CliIo): Promise<unknown> {
  if (!isWebAddress(address)) return readJson(fileURLToPath(address), io);
  const { fetchText } = await import("../../web-files.ts");
  return parseJson(await fetchText(address, MAX_JSON_BYTES), address);
}

/** The manifest with its OpenAPI document in it, where it names a file beside it: volantd reads and fetches none. */
async function withOpenApi(manifest: Manifest, origin: Origin, io: CliIo): Promise<Manifest> {
  const address = openApiAddress(manifest, origin);
  return address === undefined ? manifest : { ...manifest, openapi: JSON.stringify(await readDocument(address, io)) };
}

async function installed(client: VolantClient, name: string): Promise<Plugin | undefined> {
  try {
    return await client.plugins.get(name);
  } catch (error) {
    if (error instanceof VolantError && error.code === "not_found") return undefined;
    throw error;
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
  const { written: plain, origin } = await readManifest(given, context.io);
  const written = await withOpenApi(plain, origin, context.io);
  const files = await checkFiles(context, findFiles(written, origin));
  const manifest = withFiles(written, files);
  const client = await context.client();
  const old = await installed(client, manifest.name);
  if (old !== undefined && isDeepStrictEqual(old.manifest, manifest) && options.replace === true) {
    // Its files may have been lost where they were kept.
    await handOver(context, client, files);
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
    .description(
      "install a plugin from its manifest: a JSON file, the folder that holds manifest.json, or an address of the web",
    )
    .argument("<path|url>")
    .option("--replace", "put it in the place of an installed plugin of this name")
    .action(action(io, installPlugin));
}
