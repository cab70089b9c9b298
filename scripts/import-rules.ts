/**
 * The directions that ARCHITECTURE.md draws, as rules over import statements. A file that decides imports no I/O, a part sees only
 * the parts below it, and only the composition sees everything.
 */
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

interface Rule {
  /** Files the rule is for, by path from the root. */
  readonly from: RegExp;
  /** Imports it refuses: package names and `node:` modules as written, relative ones by their path from the root. */
  readonly refuses: RegExp;
  readonly because: string;
}

const tests = /\.test\.ts$/;
/** What reaches outside the process, or is not the same each time: I/O, clocks, randomness. */
const inputOutput = /^node:(?!assert|util|path|buffer)|^(koffi|fastify|pino)$|^@volant\/(netlink|host)$/;

export const IMPORT_RULES: readonly Rule[] = [
  {
    from: /^packages\/contract\//,
    refuses: /^node:|^@volant\//,
    because: "contract is browser-safe and depends on no other part",
  },
  {
    from: /^packages\/sdk\/(?!src\/node\/)/,
    refuses: /^node:|^packages\/sdk\/src\/node\/|^@volant\/(?!contract(\/|$))/,
    because: "the SDK runs in browsers and knows only the contract",
  },
  {
    from: /^packages\/sdk\/src\/node\//,
    refuses: /^@volant\/(?!contract(\/|$))/,
    because: "the SDK knows only the contract",
  },
  {
    from: /^packages\/mcp\//,
    refuses: /^@volant\/(?!contract(\/|$))/,
    because: "the tools know only the contract: whoever serves them says how a route is asked",
  },
  {
    from: /^packages\/mcp\/src\/(?!(protocol|stdio)\.ts$)/,
    refuses: /^@modelcontextprotocol\/|^packages\/mcp\/src\/(protocol|stdio)\.ts$/,
    because: "the protocol's library is loaded when it is used, and not with the tools",
  },
  {
    from: /^packages\/(?!mcp\/)/,
    refuses: /^@modelcontextprotocol\//,
    because: "the protocol's library is behind the tools' package",
  },
  { from: /^packages\/netlink\//, refuses: /^@volant\//, because: "netlink is a library of its own" },
  {
    from: /^packages\/host\//,
    refuses: /^@volant\/(?!contract$|netlink$)/,
    because: "host stands on contract and netlink only",
  },
  {
    from: /^packages\/volar\//,
    refuses: /^@volant\/(?!contract(\/|$)|sdk(\/|$)|host(\/installation)?$|mcp(\/|$))|^packages\/(?!volar\/)/,
    because: "volar is built on the SDK, the tools and host",
  },
  {
    from: /^packages\/volantd\//,
    refuses: /^@volant\/(sdk|volar)$/,
    because: "the control plane doesn't use its own clients",
  },
  {
    from: /^packages\/(?!volantd\/)/,
    refuses: /^@volant\/volantd|^packages\/volantd\//,
    because: "nobody imports volantd",
  },
  { from: /^packages\/netlink\/src\/codec\//, refuses: /^node:(?!net$)|^koffi$/, because: "the codec is pure bytes" },
  {
    from: /^packages\/volantd\/src\/(model|plan)\//,
    refuses: inputOutput,
    because: "what decides imports no I/O, no clock, no randomness",
  },
  {
    from: /^packages\/volantd\/src\/(model|plan)\//,
    refuses: /^packages\/volantd\/src\/(engine|network|runtime\/qemu|guest|image|store|publish|api)\//,
    because: "model and plan stand below everything that acts",
  },
  {
    from: /^packages\/volantd\/src\/api\//,
    refuses:
      /^packages\/volantd\/src\/(store|runtime|network|guest|image|plan|publish)\/|^packages\/volantd\/src\/engine\/(?!use-cases\.ts$)/,
    because: "the API calls the engine's use cases, never what lies behind them",
  },
  {
    from: /^packages\/volantd\/src\/(?!compose\.ts$|main\.ts$)/,
    refuses: /^packages\/volantd\/src\/compose\.ts$/,
    because: "only main sees the composition",
  },
];

const importPattern =
  /(?:^|\n)\s*(?:import|export)\s(?:[^"';]*?\sfrom\s+)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/g;
const typeOnlyPattern = /^\s*import\s+type\s|^\s*export\s+type\s/;

/** One sentence for each import that breaks a rule, by path and rule. Type-only imports are held to the package rules alike. */
export function checkImports(path: string, source: string): string[] {
  const found: string[] = [];
  for (const match of source.matchAll(importPattern)) {
    const written = match[1] ?? match[2] ?? "";
    const target = written.startsWith(".") ? normalize(join(dirname(path), written)) : written;
    for (const rule of IMPORT_RULES) {
      if (!rule.from.test(path) || !rule.refuses.test(target)) continue;
      // A port's types may be named anywhere below the composition: they carry no behaviour.
      if (typeOnlyPattern.test(match[0].trimStart()) && target.startsWith("packages/volantd/")) continue;
      found.push(`${path}: imports ${written}: ${rule.because}`);
    }
  }
  return found;
}

/** Every broken rule below `root`. Tests may reach wherever they prove something. */
export function findForbiddenImports(root: string): string[] {
  return globSync("packages/*/src/**/*.ts", { cwd: root })
    .filter((path) => !tests.test(path) && !path.includes("/testing/"))
    .sort()
    .flatMap((path) => checkImports(path, readFileSync(join(root, path), "utf8")));
}
