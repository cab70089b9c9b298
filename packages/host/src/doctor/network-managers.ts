/** Whether the configuration of a network manager lets it take our taps. No I/O. */

export interface ConfigFile {
  readonly path: string;
  readonly text: string;
}

/** The name that stands for all taps of ours. */
const A_TAP = "vttap-example";

/** A file of `[Section]` and `Key=value` lines: every value of a key, in order. An empty one clears those before it. */
function readValues(text: string, section: string): Map<string, string[]> {
  const values = new Map<string, string[]>();
  let current = "";
  for (const raw of text.split("\n")) {
    const line = raw.trim();
    const header = /^\[(.+)\]$/.exec(line);
    if (header !== null) current = header[1] ?? "";
    const assignment = /^([A-Za-z0-9-]+?)\s*\+?=\s*(.*)$/.exec(line);
    if (header !== null || current !== section || assignment === null) continue;
    const [, key = "", value = ""] = assignment;
    values.set(key, value === "" ? [] : [...(values.get(key) ?? []), value]);
  }
  return values;
}

/** Shell patterns as far as both managers use them: `*`, `?` and plain text. */
function matchesPattern(pattern: string, name: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${source}$`).test(name);
}

/** Whether NetworkManager leaves a link alone, by default our taps: `unmanaged-devices` of NetworkManager.conf(5), section `keyfile`. */
export function isUnmanagedByNetworkManager(files: readonly ConfigFile[], link = A_TAP): boolean {
  const specs = files.flatMap(({ text }) => readValues(text, "keyfile").get("unmanaged-devices") ?? []);
  return specs
    .flatMap((value) => value.split(/[;,]/))
    .map((spec) => spec.trim())
    .some((spec) => {
      if (spec === "*" || spec === (link === A_TAP ? "type:tun" : "type:ethernet")) return true;
      return (
        spec.startsWith("interface-name:") &&
        matchesPattern(spec.slice("interface-name:".length).replace(/^[=~]/, ""), link)
      );
    });
}

/** Whether all of `[Match]` fits a tap (systemd.network(5)). Keys that say something about hardware never do. */
function networkdMatches(match: ReadonlyMap<string, readonly string[]>): boolean {
  if (match.size === 0) return false;
  for (const [key, values] of match) {
    const words = values.flatMap((value) => value.split(/\s+/));
    const negated = words[0]?.startsWith("!") === true;
    const patterns = negated ? [words[0]?.slice(1) ?? "", ...words.slice(1)] : words;
    const facts = { Name: [A_TAP], Type: ["ether"], Kind: ["tun"], Driver: ["tun"] }[key];
    if (facts === undefined) return false;
    const fits = patterns.some((pattern) => facts.some((fact) => matchesPattern(pattern, fact)));
    if (fits === negated) return false;
  }
  return true;
}

/**
 * The `.network` file by which systemd-networkd would take a tap of ours: the first that matches decides (systemd.network(5)).
 *
 * @param files in the order in which networkd reads them: by file name
 */
export function findNetworkdSeizer(files: readonly ConfigFile[]): string | undefined {
  const first = files.find(({ text }) => networkdMatches(readValues(text, "Match")));
  if (first === undefined) return undefined;
  const unmanaged = readValues(first.text, "Link").get("Unmanaged")?.at(-1)?.toLowerCase() ?? "no";
  return ["yes", "true", "1", "on"].includes(unmanaged) ? undefined : first.path;
}
