/**
 * Runs a test file in a network namespace of its own.
 *
 * A file that touches links, addresses or rules starts with
 *
 *     import { enterOwnNamespace } from "../namespace.ts";
 *     enterOwnNamespace(import.meta.url);
 *
 * before its first test. The first time, the call replaces the process by the same test file under
 * `unshare --net`; the second time, it finds itself inside, raises lo and returns. The process keeps its pid, so
 * whoever started it can end it, and the namespace goes with it: nothing is left behind.
 *
 * Under `unshare --net`, /proc/sys/net is the namespace's own, but /sys/class/net still shows the outer one:
 * read links through netlink or `ip`.
 */
import { execFileSync } from "node:child_process";
import { readlinkSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Holds the outer namespace's name ("net:[4026531840]") inside, so that a leaked variable can't pass for isolation. */
const MARK = "VOLANT_TEST_OUTER_NETNS";

/**
 * Moves this process into a fresh network namespace with lo up. Call it at the top level of a test file, with
 * `import.meta.url`, before any test is declared. Throws when the process may not create namespaces.
 *
 * @param also `mounts`: file systems that the test mounts are its own, too, and go with it
 */
export function enterOwnNamespace(moduleUrl: string, also: "" | "mounts" = ""): void {
  const current = readlinkSync("/proc/self/ns/net");
  const outer = process.env[MARK];
  if (outer !== undefined && outer !== current) {
    delete process.env[MARK];
    execFileSync("ip", ["link", "set", "lo", "up"]);
    return;
  }
  if (outer !== undefined) throw new Error("unshare did not give this test a network namespace of its own");
  if (process.getuid?.() !== 0) {
    throw new Error(`${fileURLToPath(moduleUrl)} needs root: it makes a network namespace of its own`);
  }
  if (process.execve === undefined) throw new Error("this Node has no process.execve: use Node 24.15 or later");
  const argv = [
    "unshare",
    "--net",
    ...(also === "mounts" ? ["--mount"] : []),
    "--",
    process.execPath,
    ...process.execArgv,
  ];
  process.execve("/usr/bin/unshare", [...argv, fileURLToPath(moduleUrl), ...process.argv.slice(2)], {
    ...process.env,
    [MARK]: current,
  });
}

/** A thousand links, in detail, take more than a megabyte, which is where Node would stop. */
const MOST_OUTPUT_BYTES = 64 * 1024 * 1024;

/** Runs `ip` in this namespace and returns what it printed. Throws with its standard error when it fails. */
export function ip(...args: string[]): string {
  return execFileSync("ip", args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: MOST_OUTPUT_BYTES,
  });
}

/** What `ip -json -details …` prints, parsed. `ip` prints nothing at all for an empty list; that is `[]` here. */
export function ipJson(...args: string[]): Record<string, unknown>[] {
  const text = ip("-json", "-details", ...args).trim();
  return text === "" ? [] : (JSON.parse(text) as Record<string, unknown>[]);
}
