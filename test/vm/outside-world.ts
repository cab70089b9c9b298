/**
 * A second network namespace that plays the outside world: a router at 203.0.113.1 (RFC 5737 documentation range) with a real dnsmasq that knows
 * `page.example`, and a web server. It has no route back to any guest, so that an answer proves masquerading. The test's own namespace gets 203.0.113.2 and
 * a default route through it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { once } from "node:events";
import { ip } from "../namespace.ts";
import { eventOf, within } from "../patience.ts";

export const OUTSIDE_ADDRESS = "203.0.113.1";
export const OUTSIDE_NAME = "page.example";
export const OUTSIDE_PAGE = "hello from outside";

export interface OutsideWorld {
  /** A process that holds its namespace open. */
  readonly pid: number;
  close(): Promise<void>;
}

/** Kills a program and waits for its end. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await within(exited, `the end of process ${child.pid}`);
}

/** Starts a program inside the namespace of `pid`, ready when `ready` appears in its output. */
export async function startInside(
  pid: number,
  args: readonly string[],
  ready: RegExp | undefined,
): Promise<ChildProcess> {
  const child = spawn("nsenter", ["--net", "--target", String(pid), "--", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  const isReady = new Promise<void>((resolve, reject) => {
    const listen = (text: Buffer): void => {
      said += text.toString();
      if (ready?.test(said) === true) resolve();
    };
    child.stdout.on("data", listen);
    child.stderr.on("data", listen);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${args[0]} ended with exit code ${code}: ${said}`)));
    if (ready === undefined) child.once("spawn", () => resolve());
  });
  await within(isReady, `${args[0]} that is ready`, () => said);
  return child;
}

/** @param directory where the web server's page may be put */
export async function openOutsideWorld(directory: string): Promise<OutsideWorld> {
  // The namespace lives as long as this process: `cat` waits for an end of input that never comes.
  const holder = spawn("unshare", ["--net", "--", "sh", "-c", "ip link set lo up && echo ready && exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await eventOf(holder.stdout, "data", "a network namespace");
  const pid = holder.pid;
  if (pid === undefined) throw new Error("unshare did not start");
  ip("link", "add", "outside", "type", "veth", "peer", "name", "inside", "netns", String(pid));
  ip("addr", "add", "203.0.113.2/24", "dev", "outside");
  ip("link", "set", "outside", "up");
  const inside = async (...args: string[]): Promise<void> => {
    const child = spawn("nsenter", ["--net", "--target", String(pid), "--", "ip", ...args], {
      stdio: ["ignore", "inherit", "inherit"],
    });
    const [code] = (await within(once(child, "exit"), `ip ${args.join(" ")}`)) as [number | null];
    if (code !== 0) throw new Error(`ip ${args.join(" ")} failed in the outside world`);
  };
  await inside("addr", "add", `${OUTSIDE_ADDRESS}/24`, "dev", "inside");
  await inside("link", "set", "inside", "up");
  ip("route", "add", "default", "via", OUTSIDE_ADDRESS);

  const pages = join(directory, "outside-pages");
  mkdirSync(pages, { recursive: true });
  writeFileSync(join(pages, "index.html"), `${OUTSIDE_PAGE}\n`);
  const web = await startInside(pid, ["busybox", "httpd", "-f", "-p", `${OUTSIDE_ADDRESS}:80`, "-h", pages], undefined);
  const dns = await startInside(
    pid,
    [
      "dnsmasq",
      "--keep-in-foreground",
      "--log-facility=-",
      "--conf-file=/dev/null",
      "--user=root",
      "--pid-file=",
      "--no-resolv",
      "--no-hosts",
      "--bind-interfaces",
      `--listen-address=${OUTSIDE_ADDRESS}`,
      `--address=/${OUTSIDE_NAME}/${OUTSIDE_ADDRESS}`,
    ],
    /started, version/,
  );
  return {
    pid,
    close: async () => {
      await end(dns);
      await end(web);
      await end(holder);
      // The link goes with the namespace at the other end of the pair, but when is the kernel's choice.
      try {
        ip("link", "del", "outside");
      } catch {
        // It went first.
      }
    },
  };
}
