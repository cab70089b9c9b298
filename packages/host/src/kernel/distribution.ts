/** Where the host's distribution keeps a kernel that suits virtual machines. Pure: text in, names out. */

/** Packages to fetch, and what to call the kernel they hold. */
export interface KernelPackages {
  /** The package with the image; its name ends in the kernel's release. */
  readonly image: string;
  readonly version: string;
  /** The package with the modules, where that is another one. */
  readonly modules?: string;
}

/** The distribution's own word for "the newest kernel of this kind": a package that only depends on the real one. */
export interface KernelFlavour {
  readonly metaPackage: string;
  /** From the image's package to the modules' package; absent where one package holds both. */
  readonly modulesPackage?: (imagePackage: string) => string;
}

/** `KEY=value` lines, values quoted or not (os-release(5)). */
export function parseOsRelease(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    const match = /^([A-Z0-9_]+)=(?:"([^"]*)"|'([^']*)'|(.*))$/.exec(line.trim());
    if (match?.[1] !== undefined) values.set(match[1], match[2] ?? match[3] ?? match[4] ?? "");
  }
  return values;
}

/** The kernel to take on a distribution; undefined where Volant knows none. */
export function kernelFlavour(osRelease: ReadonlyMap<string, string>): KernelFlavour | undefined {
  const ids = [osRelease.get("ID") ?? "", ...(osRelease.get("ID_LIKE") ?? "").split(" ")];
  if (ids.includes("ubuntu")) {
    return {
      metaPackage: "linux-image-virtual",
      modulesPackage: (image) => image.replace(/^linux-image(-unsigned)?-/, "linux-modules-"),
    };
  }
  if (ids.includes("debian")) return { metaPackage: "linux-image-cloud-amd64" };
  return undefined;
}

/**
 * The real package behind a kernel meta-package.
 *
 * @param show what `apt-cache show --no-all-versions <meta>` printed
 * @returns name and version, where the dependency names one; undefined when the text has no such dependency
 */
export function parseMetaPackage(show: string): { readonly image: string; readonly version?: string } | undefined {
  const depends = /^Depends: (.*)$/m.exec(show)?.[1];
  if (depends === undefined) return undefined;
  for (const clause of depends.split(",")) {
    // deb-src-control(5): alternatives are separated by "|", a version restriction stands in parentheses.
    const match = /^\s*(linux-image-[a-z0-9.+-]*\d[a-z0-9.+-]*)(?:\s*\(= ([A-Za-z0-9.+~:-]+)\))?/.exec(clause);
    if (match?.[1] === undefined) continue;
    return match[2] === undefined ? { image: match[1] } : { image: match[1], version: match[2] };
  }
  return undefined;
}

/** `Version:` of the first stanza of `apt-cache show`. */
export function parseVersion(show: string): string | undefined {
  return /^Version: ([A-Za-z0-9.+~:-]+)$/m.exec(show)?.[1];
}
