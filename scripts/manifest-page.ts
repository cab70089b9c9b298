/** docs/manifest.md, from the schema of a manifest. Pure. */

/** As much of JSON Schema as the contract's own schemas use. */
export interface PlainSchema {
  readonly type?: string;
  readonly const?: string;
  readonly description?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly required?: readonly string[];
  readonly anyOf?: readonly PlainSchema[];
  readonly items?: PlainSchema;
  readonly properties?: Readonly<Record<string, PlainSchema>>;
  readonly patternProperties?: Readonly<Record<string, PlainSchema>>;
}

export interface Field {
  /** Such as `disks[].name` and `actions.<name>.path`. */
  readonly path: string;
  readonly schema: PlainSchema;
  readonly isRequired: boolean;
}

const HEAD = `# The manifest

A manifest says what a plugin is: one JSON document, which \`volar plugins install\` reads. This page is made from its schema (\`node scripts/manifest-docs.ts\`),
and so is [manifest.schema.json](manifest.schema.json) (JSON Schema, 2020-12). An editor that is told where that file is completes and checks a manifest while it is
written: \`"$schema": "../../docs/manifest.schema.json"\`, as in [examples/hello](../examples/hello/manifest.json). [The tutorial](plugin-tutorial.md) writes a manifest from nothing.

Fields that are not here are refused (400), and so is a value that does not fit. A path of a file is meant from the manifest's own folder.
\`volar\` hands the files over by their SHA-256; a \`checksum\` that is given is compared with the file. volantd itself fetches nothing: it is given files, or finds them in its
own work folder; an address of the web that \`volar\` did not fetch for it is answered with 501.
`;

/** What holds the fields of a list's entries, or of a record's values, with how they are written in a path. */
function inner(schema: PlainSchema): [schema: PlainSchema, suffix: string] {
  if (schema.items !== undefined) return [schema.items, "[]"];
  const value = Object.values(schema.patternProperties ?? {})[0];
  return value?.properties === undefined ? [schema, ""] : [value, ".<name>"];
}

/** The fields of an object, each followed by what is inside of it. */
export function fieldsOf(schema: PlainSchema, at = ""): Field[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const path = at === "" ? name : `${at}.${name}`;
    const [within, suffix] = inner(field);
    const isRequired = schema.required?.includes(name) === true;
    return [{ path, schema: field, isRequired }, ...fieldsOf(within, `${path}${suffix}`)];
  });
}

/** A value's type, in words. */
function typeText({ type, anyOf, items, patternProperties, minimum, maximum, const: only }: PlainSchema): string {
  if (only !== undefined) return `\`${JSON.stringify(only)}\``;
  if (anyOf !== undefined) return anyOf.map(typeText).join(" or ");
  if (items !== undefined) return items.properties === undefined ? `list of ${typeText(items)}` : "list of objects";
  if (patternProperties !== undefined) {
    const value = Object.values(patternProperties)[0];
    return value?.properties === undefined ? "object of text" : "object of objects";
  }
  if (type === "integer") return `whole number, ${minimum} to ${maximum}`;
  if (type === "boolean") return "`true` or `false`";
  return type === "string" ? "text" : "object";
}

const plain = (text: string): string => text.replaceAll("|", "\\|").replaceAll("<", "&lt;").replaceAll("*", "\\*");

function row({ path, schema, isRequired }: Field): string {
  return `| \`${path}\` | ${typeText(schema)} | ${isRequired ? "yes" : ""} | ${plain(schema.description ?? "")} |`;
}

const table = (fields: readonly Field[]): string[] => [
  "",
  "| field | value | required | what it is |",
  "|---|---|---|---|",
  ...fields.map(row),
];

/** The whole page. */
export function manifestPage(schema: PlainSchema): string {
  const all = fieldsOf(schema);
  const top = all.filter(({ path }) => /^[$\w]+$/.test(path));
  const sections = top.flatMap(({ path, schema: { description = "" } }) => {
    const parts = all.filter(
      (field) => field.path.startsWith(path) && /^(\[\])?\./.test(field.path.slice(path.length)),
    );
    return parts.length === 0 ? [] : ["", `## ${path}`, "", `${plain(description)}.`, ...table(parts)];
  });
  const refused = all.filter(({ schema: { description } }) => /\b501\b/.test(description ?? ""));
  const lines = [
    HEAD.trimEnd(),
    "",
    "## All fields",
    ...table(top),
    "",
    "What this version can't honour is refused with 501 (code `not_supported`) and never stored in silence. What asks for nothing, such as an empty list, is let through.",
    "",
    ...refused.map(({ path, schema: { description = "" } }) => `- \`${path}\`: ${plain(description)}.`),
    ...sections,
    "",
    "What belongs to a plugin once it is installed: [plugins.md](plugins.md). How its workload is asked: [workloads.md](workloads.md).",
  ];
  return `${lines.join("\n")}\n`;
}
