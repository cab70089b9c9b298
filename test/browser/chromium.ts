/** A real Chromium, headless, with a profile and a home of its own that go with it. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Browser, type Page } from "playwright-core";
import { PATIENCE_MS, until, within } from "../patience.ts";

/** Debian's, which `npm test` installs; VOLANT_CHROMIUM names another one. */
const program = process.env["VOLANT_CHROMIUM"] || "/usr/bin/chromium";

/** Without a sandbox, which root can't have; and without whatever asks the outside world, which is none of the test's business. */
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Pids of processes that were started with this text in their environment, as children of a browser are. */
function processesWith(text: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
    try {
      return readFileSync(`/proc/${pid}/environ`, "utf8").includes(text);
    } catch {
      return false;
    }
  });
}

export class Chromium {
  readonly #browser: Browser;
  readonly #home: string;

  static async open(): Promise<Chromium> {
    assert.ok(
      existsSync(program),
      `the browser tests need a Chromium, and there is none at ${program}: install Debian's package chromium, or name one by VOLANT_CHROMIUM`,
    );
    const home = mkdtempSync(join(tmpdir(), "chromium-"));
    const folders = { HOME: home, XDG_CONFIG_HOME: join(home, "config"), XDG_CACHE_HOME: join(home, "cache") };
    try {
      const browser = await chromium.launch({
        executablePath: program,
        args: FLAGS,
        timeout: PATIENCE_MS,
        // Its profile, too, is made there.
        env: { ...(process.env as Record<string, string>), ...folders, TMPDIR: home },
      });
      return new Chromium(browser, home);
    } catch (error) {
      rmSync(home, { recursive: true, force: true });
      throw error;
    }
  }

  private constructor(browser: Browser, home: string) {
    this.#browser = browser;
    this.#home = home;
  }

  /** A page at this URL, in a context of its own: without what other pages have stored. */
  async page(url: string): Promise<Page> {
    const context = await this.#browser.newContext();
    context.setDefaultTimeout(PATIENCE_MS);
    const page = await context.newPage();
    await page.goto(url);
    return page;
  }

  async close(): Promise<void> {
    await within(this.#browser.close(), "Chromium's end");
    await until("all of Chromium's processes are gone", () => processesWith(`HOME=${this.#home}`).length === 0);
    rmSync(this.#home, { recursive: true, force: true });
  }
}
