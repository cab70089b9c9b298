/** Fetches a distribution's kernel package with the host's own apt and unpacks it, without installing anything. */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { VolantError } from "@volant/contract";
import { kernelFlavour, parseMetaPackage, parseOsRelease, parseVersion, type KernelPackages } from "./distribution.ts";

const execFileAsync = promisify(execFile);

/** A kernel package is about 30 MB; a slow line may take its time, a dead one must not take for ever. */
const DOWNLOAD_TIMEOUT_MS = 10 * 60_000;
const UPDATE_TIMEOUT_MS = 5 * 60_000;
const LOCAL_TIMEOUT_MS = 2 * 60_000;

/**
 * apt(8) drops to the user `_apt` to download, who can't write into a private folder, and then says so at length: the download of a signed
 * package stays with root.
 */
const APT_OPTIONS = ["-q", "-o", "APT::Sandbox::User=root"];

class CommandError extends Error {
  readonly output: string;
  constructor(command: string, output: string) {
    super(`${command} failed`);
    this.output = output;
  }
}

async function run(command: string, args: readonly string[], timeoutMs: number, cwd?: string): Promise<string> {
  try {
    const { stdout } = await execFileAsync(command, [...args], {
      timeout: timeoutMs,
      maxBuffer: 16 * 1024 * 1024,
      env: { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
      ...(cwd === undefined ? {} : { cwd }),
    });
    return stdout;
  } catch (error) {
    const failure = error as NodeJS.ErrnoException & { stderr?: string; killed?: boolean };
    if (failure.code === "ENOENT") {
      throw new VolantError("not_ready", `${command} is not installed, so the distribution's kernel can't be fetched`, {
        hint: "give a kernel as a file: volar kernel install --file <bzImage>",
      });
    }
    const said = failure.stderr?.trim() ?? "";
    throw new CommandError(command, failure.killed === true ? `no answer within ${timeoutMs / 1000} s` : said);
  }
}

/** The sentence for a failed apt: the likely cause first, apt's own last words after it. */
function aptError(what: string, error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  const lines = error.output.split("\n").filter((line) => /^(E|Err|W):/.test(line));
  const last = (lines.find((line) => line.startsWith("E:")) ?? lines.at(-1) ?? error.output).trim();
  const offline = /resolv|connect|network is unreachable|timed? ?out|no answer/i.test(error.output);
  return new VolantError(
    "not_ready",
    offline ? `${what}: no package server can be reached (${last})` : `${what}: ${last === "" ? error.message : last}`,
    { hint: "check the network, or give a kernel as a file: volar kernel install --file <bzImage>", cause: error },
  );
}

async function show(name: string): Promise<string | undefined> {
  try {
    return await run("apt-cache", ["show", "--no-all-versions", name], LOCAL_TIMEOUT_MS);
  } catch (error) {
    if (error instanceof CommandError && /No packages found|Unable to locate/i.test(error.output)) return undefined;
    throw aptError("the package lists can't be read", error);
  }
}

/**
 * Which packages hold the newest kernel for virtual machines on this host. Runs `apt-get update` first when the lists do not know it.
 *
 * @throws VolantError `not_ready` when the distribution is none that Volant knows a kernel of, or apt can't be asked
 */
export async function findKernelPackages(onProgress: (line: string) => void): Promise<KernelPackages> {
  const osRelease = parseOsRelease(await readFile("/etc/os-release", "utf8").catch(() => ""));
  const flavour = kernelFlavour(osRelease);
  if (flavour === undefined) {
    const name = osRelease.get("PRETTY_NAME") ?? "this distribution";
    throw new VolantError("not_ready", `Volant knows no kernel package of ${name}`, {
      hint: "give a kernel as a file: volar kernel install --file <bzImage> --modules <folder>",
    });
  }
  let text = await show(flavour.metaPackage);
  if (text === undefined) {
    onProgress("the package lists don't know a kernel yet: running apt-get update");
    try {
      await run("apt-get", [...APT_OPTIONS, "update"], UPDATE_TIMEOUT_MS);
    } catch (error) {
      throw aptError("the package lists can't be brought up to date", error);
    }
    text = await show(flavour.metaPackage);
  }
  const meta = text === undefined ? undefined : parseMetaPackage(text);
  if (meta === undefined) {
    throw new VolantError("not_ready", `the package lists name no ${flavour.metaPackage}`, {
      hint: "check the sources in /etc/apt, or give a kernel as a file: volar kernel install --file <bzImage>",
    });
  }
  const version = meta.version ?? parseVersion((await show(meta.image)) ?? "");
  if (version === undefined) {
    throw new VolantError("not_ready", `the package lists name no version of ${meta.image}: run apt-get update`);
  }
  const modules = flavour.modulesPackage?.(meta.image);
  return modules === undefined ? { image: meta.image, version } : { image: meta.image, version, modules };
}

/**
 * Downloads the packages and unpacks them into a folder.
 *
 * @param folder an empty folder of the caller's
 * @returns where the packages' files are now, as if it were `/`
 * @throws VolantError `not_ready` when a package can't be fetched
 */
export async function fetchKernelPackages(
  packages: KernelPackages,
  folder: string,
  onProgress: (line: string) => void,
): Promise<string> {
  const names = [packages.image, ...(packages.modules === undefined ? [] : [packages.modules])];
  onProgress(`downloading ${names.join(" and ")} ${packages.version}`);
  try {
    const wanted = names.map((name) => `${name}=${packages.version}`);
    await run("apt-get", [...APT_OPTIONS, "download", ...wanted], DOWNLOAD_TIMEOUT_MS, folder);
  } catch (error) {
    throw aptError("the kernel can't be downloaded", error);
  }
  const root = join(folder, "root");
  onProgress("unpacking");
  for (const file of (await readdir(folder)).filter((name) => name.endsWith(".deb"))) {
    try {
      await run("dpkg-deb", ["-x", join(folder, file), root], LOCAL_TIMEOUT_MS);
    } catch (error) {
      throw aptError(`${file} can't be unpacked`, error);
    }
  }
  return root;
}
