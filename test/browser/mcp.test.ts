/** The Model Context Protocol from a page of another origin, with the protocol's own client: its headers pass the preflight. */
import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { TOOLS } from "@volant/mcp";
import type { Page } from "playwright-core";
import { runApi, type RunningApi } from "../../packages/volantd/src/api/testing/running-api.ts";
import { enterOwnNamespace } from "../namespace.ts";
import { within } from "../patience.ts";
import { Chromium } from "./chromium.ts";
import type { McpScenes } from "./mcp-scenes.ts";
import { PageServer } from "./page-server.ts";

enterOwnNamespace(import.meta.url);

const apiKey = "a key that only a page has";
let [chromium, pages, running]: [Chromium?, PageServer?, RunningApi?] = [];
let page: Page;
/** Names of the headers that the page's requests had, preflights left out. */
const sent = new Set<string>();

before(async () => {
  pages = await PageServer.open("mcp-scenes.ts");
  running = await runApi({ apiKey, corsOrigins: [pages.origin] });
  await running.useCases.vms.create({ name: "web" });
  chromium = await Chromium.open();
  page = await chromium.page(pages.origin);
  page.on("request", (request) => {
    if (request.method() !== "OPTIONS") for (const name of Object.keys(request.headers())) sent.add(name);
  });
});
after(async () => {
  await chromium?.close();
  await running?.api.close();
  await pages?.close();
  assert.deepEqual(running?.errors, []);
});

for (const [generation, isNewest, headers] of [
  ["2025", false, ["mcp-protocol-version"]],
  ["2026", true, ["mcp-protocol-version", "mcp-method", "mcp-name"]],
] as const) {
  test(`a page's client of the protocol of ${generation} lists tools and calls one`, async () => {
    sent.clear();
    const used = page.evaluate(
      (given) => {
        const { scenes } = globalThis as unknown as { scenes: McpScenes };
        return scenes.useTools(...given);
      },
      [`${running?.address}/mcp`, apiKey, isNewest] as Parameters<McpScenes["useTools"]>,
    );
    const { version, tools, total } = await within(used, "the page's tools");
    assert.equal(version.slice(0, 4), generation);
    assert.equal(tools, TOOLS.length);
    assert.equal(total, 1);
    for (const name of headers) assert.ok(sent.has(name), `the client sends ${name}, which needs a preflight`);
  });
}
