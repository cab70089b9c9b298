/**
 * What the placeholders of arguments and flags stand for: `<vm>` in a command's definition is the name of a VM, for whoever reads its help and for everything
 * that is made from the definitions. Pure.
 */

/** Objects that volantd knows by name. */
export type Noun = "vm" | "deployment" | "plugin";

/** What may stand in the place of a placeholder, as far as it can be told. */
export interface Meaning {
  /** Names of these. */
  readonly nouns: readonly Noun[];
  readonly words: readonly string[];
  readonly files: "files" | "folders" | undefined;
  /** Added to each name. */
  readonly suffix: string;
}

const NOUNS: ReadonlyMap<string, Noun> = new Map(
  Object.entries<Noun>({
    vm: "vm",
    vms: "vm",
    deployment: "deployment",
    deployments: "deployment",
    plugin: "plugin",
    plugins: "plugin",
  }),
);

const WORDS: ReadonlyMap<string, readonly string[]> = new Map(
  Object.entries({
    mode: ["bridged", "vsock", "dhcp"],
    status: ["pending", "starting", "running", "stopped", "crashed"],
    field: ["name", "status", "runtime", "created_at", "updated_at"],
    order: ["asc", "desc"],
    kind: ["iptables", "nftables"],
    type: ["created", "updated", "running", "stopped", "crashed", "deleted"],
  }),
);

const FILES: ReadonlyMap<string, Meaning["files"]> = new Map(
  Object.entries<Meaning["files"]>({
    file: "files",
    path: "files",
    "path|url": "files",
    bzImage: "files",
    source: "files",
    target: "files",
    folder: "folders",
  }),
);

/** `<vm>:<path>`, see `volar vms cp`. */
const COPY_ENDS = new Set(["source", "target"]);

const NOTHING: Meaning = { nouns: [], words: [], files: undefined, suffix: "" };

/** The meaning of a placeholder as it stands between its brackets, such as `vm`, `vms...` or `vm|deployment`. */
export function meaningOf(placeholder: string): Meaning {
  const name = placeholder.replace(/\.\.\.$/, "");
  if (COPY_ENDS.has(name)) return { nouns: ["vm"], words: [], files: "files", suffix: ":" };
  const nouns = name.split("|").flatMap((part) => NOUNS.get(part) ?? []);
  return { ...NOTHING, nouns, words: WORDS.get(name) ?? [], files: FILES.get(name) };
}

/** The placeholder in a flag's definition, such as `vm` of `--vm <vm>`; undefined where the flag takes no value. */
export function flagPlaceholder(flags: string): string | undefined {
  return /[<[]([^>\]]+)[>\]]/.exec(flags)?.[1];
}
