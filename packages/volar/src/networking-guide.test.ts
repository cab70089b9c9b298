/** docs/networking.md names only what exists: files, exported names, commands with their flags, variables, routes, fields and checks. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { AGENT_PATH, ENDPOINTS, Network, STREAM_ENDPOINTS } from "@volant/contract";
import { CHECKS } from "@volant/host";
import type { Command } from "commander";
import { processIo } from "./io.ts";
import { createProgram } from "./program.ts";

const root = join(import.meta.dirname, "../../..");
const guide = readFileSync(join(root, "docs/networking.md"), "utf8");
const settings = readFileSync(join(root, "docs/settings.md"), "utf8");

const spans = (text: string): string[] => [...text.matchAll(/`([^`\n]+)`/g)].map((match) => match[1] as string);
const section = (title: string): string => guide.split(`\n## ${title}\n`)[1]?.split("\n## ")[0] ?? "";

/** Cells of a section's table, without its two rows of heading. */
function rows(title: string): string[][] {
  const lines = section(title)
    .split("\n")
    .filter((line) => line.startsWith("|"));
  return lines.slice(2).map((line) =>
    line
      .slice(1, -1)
      .split(" | ")
      .map((cell) => cell.trim()),
  );
}

/** Whether a source file gives this name to others. */
function isGiven(path: string, name: string): boolean {
  const text = readFileSync(join(root, path), "utf8");
  const before = path.endsWith(".rs")
    ? "pub (?:async )?(?:fn|struct|enum|trait)"
    : "export (?:async )?(?:function\\*?|class|const|interface|type)";
  return new RegExp(`\\b${before} ${name}\\b`).test(text);
}

const promises = rows("Where each promise is kept");

test("the map has a row for each promise, each with a file that makes it true and a test that proves it", () => {
  assert.ok(promises.length > 30);
  for (const row of promises) {
    assert.equal(row.length, 3, row.join(" | "));
    const [promise = "", makers = "", proof = ""] = row;
    assert.ok(spans(makers)[0]?.includes("/"), promise);
    const [test, ...more] = spans(proof);
    assert.deepEqual(more, [], promise);
    assert.match(test ?? "", /\.test\.ts$/, promise);
  }
});

test("every file that the guide cites exists, and every name after it is one that the file gives to others", () => {
  for (const [promise = "", makers = "", proof = ""] of promises) {
    let file = "";
    for (const span of spans(`${makers} ${proof}`)) {
      if (!span.includes("/")) {
        assert.ok(isGiven(file, span), `${promise}: ${file} has no ${span}`);
        continue;
      }
      file = span;
      assert.ok(existsSync(join(root, file)), `${promise}: ${file} does not exist`);
    }
  }
  for (const [, target = ""] of guide.matchAll(/\]\(([^)]+)\)/g)) {
    const [file = "", anchor] = target.split("#", 2);
    assert.ok(existsSync(join(root, "docs", file)), target);
    if (anchor === undefined) continue;
    const text = file === "" ? guide : readFileSync(join(root, "docs", file), "utf8");
    const titles = [...text.matchAll(/^#+ (.+)$/gm)].map((match) => (match[1] ?? "").toLowerCase());
    assert.ok(
      titles.some((title) => title.replaceAll(/[^a-z0-9 -]/g, "").replaceAll(" ", "-") === anchor),
      target,
    );
  }
});

/** Every command line of `volar` in the guide, as words. */
function commandLines(): string[][] {
  const blocks = [...guide.matchAll(/^```\n(.*?)^```$/gms)].flatMap((match) => (match[1] ?? "").split("\n"));
  return [...blocks, ...spans(guide.replaceAll(/^```\n.*?^```$/gms, ""))]
    .map((line) => line.replace(/\s+#.*$/, "").trim())
    .filter((line) => /^(?:bin\/)?volar /.test(line))
    .map((line) => line.split(/\s+/).slice(1));
}

/** The command that these words name, and the words that are not its name. */
async function resolveCommand(words: readonly string[]): Promise<[Command, string[]]> {
  let command: Command = await createProgram(words, processIo());
  const rest = [...words];
  for (;;) {
    const next = command.commands.find((each) => each.name() === rest[0]);
    if (next === undefined) return [command, rest];
    command = next;
    rest.shift();
  }
}

test("every command of the guide is one of volar's, with flags that it has", async () => {
  const lines = commandLines();
  assert.ok(lines.length > 15);
  for (const words of lines) {
    const [command, rest] = await resolveCommand(words);
    assert.ok(command.parent !== null && command.commands.length === 0, `volar ${words.join(" ")} is no command`);
    const end = rest.indexOf("--");
    for (const flag of (end === -1 ? rest : rest.slice(0, end)).filter((word) => word.startsWith("--"))) {
      assert.ok(
        command.options.some(({ long }) => long === flag),
        `volar ${words.join(" ")}: no ${flag}`,
      );
    }
  }
});

test("every flag that the guide names alone is one of setup's or create's", async () => {
  const [setup] = await resolveCommand(["setup"]);
  const [create] = await resolveCommand(["vms", "create"]);
  const known = new Set([...setup.options, ...create.options].map(({ long }) => long));
  const named = spans(guide).filter((span) => /^--[a-z-]+$/.test(span));
  assert.ok(named.length > 5);
  assert.deepEqual(
    named.filter((flag) => !known.has(flag)),
    [],
  );
});

test("every variable of the guide is in settings.md, and every value of VOLANT_NETWORK with it", () => {
  const variables = new Set([...guide.matchAll(/VOLANT_[A-Z_]+/g)].map(([name]) => name));
  assert.ok(variables.size > 3);
  for (const name of variables) assert.ok(settings.includes(`| \`${name}\` |`), name);
  for (const [, value] of guide.matchAll(/VOLANT_NETWORK=([a-z]+)/g)) {
    assert.match(settings, new RegExp(`\`VOLANT_NETWORK\`.*\`${value}\``));
  }
});

test("every route of the guide is in the table of routes", () => {
  const paths = [
    AGENT_PATH,
    ...[...Object.values(ENDPOINTS), ...Object.values(STREAM_ENDPOINTS)].map(({ path }) => path),
  ];
  const patterns = paths.map((path) => new RegExp(`^${path.replaceAll(/:[a-z_]+/g, "[^/]+")}/?$`));
  const routes = [...guide.matchAll(/\/api\/v1[\w/:.-]*/g)].map(([route]) => route);
  assert.ok(routes.length > 1);
  for (const route of routes)
    assert.ok(
      patterns.some((pattern) => pattern.test(route)),
      route,
    );
});

test("every field of network that the guide names is the contract's, and so are the modes", () => {
  const fields = new Set([...guide.matchAll(/`network\.([a-z_]+)`/g)].map((match) => match[1] as string));
  const inJson = [...guide.matchAll(/\{"network": (\{[^}]*\})\}/g)].flatMap((match) =>
    Object.keys(JSON.parse(match[1] ?? "{}") as object),
  );
  for (const field of [...fields, ...inJson]) assert.ok(Object.hasOwn(Network.properties, field), field);
  assert.deepEqual(
    rows("The three modes").map(([mode]) => spans(mode ?? "")[0]),
    ["bridged", "dhcp", "vsock"],
  );
});

test("every check that troubleshooting sends to is one of the doctor's", () => {
  const symptoms = rows("Troubleshooting");
  assert.ok(symptoms.length > 10);
  for (const [symptom = "", check = ""] of symptoms) {
    const names = spans(check);
    assert.ok(names.length > 0 || check.startsWith("none"), symptom);
    for (const name of names) assert.ok(Object.hasOwn(CHECKS, name), `${symptom}: ${name}`);
  }
});
