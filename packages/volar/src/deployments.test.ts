/** `volar deployments` as a user runs it, against a real API over loopback. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";

const entry = join(import.meta.dirname, "main.ts");
let running: RunningApi;

before(async () => {
  running = await runApi();
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function volar(args: readonly string[], input = ""): Promise<Finished> {
  const env = { PATH: process.env["PATH"], VOLANT_API_BASE: running.address };
  const child = spawn(process.execPath, [entry, ...args], { env });
  child.stdin.on("error", () => undefined).end(input);
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, stdout, stderr };
}

/** Runs it, which must succeed. */
async function done(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await volar(args);
  assert.deepEqual([code, stderr], [0, ""]);
  return stdout;
}

test("a deployment is created from a file and flags, listed, shown, changed, scaled, rolled back and deleted", async () => {
  const file = JSON.stringify({ plugin: "hello", env: { A: "file", B: "file" } });
  const args = [
    "deployments",
    "create",
    "web",
    "--config",
    "-",
    "--replicas",
    "3",
    "--env",
    "A=flag",
    "--max-unavailable",
    "2",
  ];
  const created = await volar([...args, "--ready-timeout", "30s", "--output", "json"], file);
  assert.equal(created.code, 0, created.stderr);
  const deployment = JSON.parse(created.stdout) as Record<string, unknown>;
  assert.deepEqual(deployment["config"], { plugin: "hello", env: { A: "flag", B: "file" } });
  assert.deepEqual(
    [deployment["desired_replicas"], deployment["max_unavailable"], deployment["ready_timeout_ms"]],
    [3, 2, 30_000],
  );
  running.deployments.move("web", 2, "progressing", "2 of 3 replicas are ready");
  assert.equal(
    await done("deployments", "list"),
    "NAME  READY  UPDATED  VERSION  PLUGIN  ROLLOUT\nweb   2/3    2/3      1        hello   progressing (2 of 3 replicas are ready)\n".replaceAll(
      "\\\n",
      "\n",
    ),
  );
  await done("deployments", "update", "web", "--memory", "1G", "--env", "C=3");
  assert.deepEqual(running.useCases.deployments.get("web").config, {
    plugin: "hello",
    env: { A: "flag", B: "file", C: "3" },
    resources: { memory_mb: 1024 },
  });
  assert.match(await done("deployments", "get", "web"), /^version: +2$/m);
  assert.match(await done("deployments", "history", "web"), /^2 +.*"memory_mb":1024.*\n1 /m);
  await done("deployments", "rollback", "web", "1");
  assert.equal(running.useCases.deployments.get("web").version, 1);
  await done("deployments", "scale", "web", "--replicas", "5");
  await done("vms", "scale", "web", "--replicas", "4");
  assert.equal(running.useCases.deployments.get("web").desired_replicas, 4);
  assert.match(await done("deployments", "pause", "web"), /^paused: +yes$/m);
  assert.doesNotMatch(await done("deployments", "resume", "web"), /^paused/m);
  assert.equal(await done("deployments", "delete", "web"), "web deleted\n");
});

test("--wait ends when all are ready, and with exit code 1 and the reason when the roll-out stops", async () => {
  const created = volar(["deployments", "create", "shop", "--plugin", "hello", "--wait=1m"]);
  const limit = AbortSignal.timeout(60_000);
  for await (const told of running.feed.subscribe({ afterId: 0, signal: limit })) {
    if (!("event" in told)) continue;
    const { event } = told;
    if (event.type === "DEPLOYMENT_CREATED" && event.name === "shop") break;
  }
  running.deployments.move("shop", 1, "complete");
  const { code, stdout, stderr } = await created;
  assert.deepEqual([code, /^ready: +1$/m.test(stdout)], [0, true], stderr);
  running.deployments.move("shop", 0, "failed", "shop-1 is ill");
  const failed = await volar(["deployments", "wait", "shop", "--timeout", "1m"]);
  assert.deepEqual([failed.code, failed.stdout], [1, ""]);
  assert.match(failed.stderr, /^volar: the roll-out of deployment "shop" has stopped: shop-1 is ill\n.*rollback shop/);
  assert.equal(await done("deployments", "delete", "shop", "--no-wait"), "shop is being deleted\n");
  assert.equal(await done("deployments", "delete", "shop", "--wait", "--timeout", "30s"), "shop deleted\n");
});

const mistakes: readonly [args: readonly string[], code: number, sentence: RegExp][] = [
  [["deployments", "scale", "web"], 2, /--replicas/],
  [["deployments", "scale", "web", "--replicas", "many"], 2, /whole number/],
  [["deployments", "create", "a/b", "--plugin", "hello"], 2, /deployment name "a\/b" must not contain/],
  [["deployments", "create", "web"], 2, /needs a configuration: give --plugin or --config/],
  [["deployments", "update", "web"], 2, /nothing is to be changed/],
  [["deployments", "rollback", "web", "first"], 2, /whole number/],
  [["deployments", "get", "none"], 1, /"none"/],
  [["deployments", "delete", "none"], 1, /"none"/],
  [["vms", "scale", "web"], 2, /--cpu, --memory or --replicas/],
  [["vms", "scale", "web", "--replicas", "2", "--cpu", "1"], 2, /--replicas is for a deployment/],
];
for (const [args, code, sentence] of mistakes) {
  test(`volar ${args.join(" ")} ends with ${code} and a sentence`, async () => {
    const finished = await volar(args);
    assert.deepEqual([finished.code, finished.stdout], [code, ""], finished.stderr);
    assert.match(finished.stderr, sentence);
  });
}

test("a VM is given other resources, and restarted where that is asked for", async () => {
  await running.useCases.vms.create({ name: "one" });
  await running.useCases.configs.patch("one", { resources: { cpu_cores: 1, memory_mb: 256 } });
  await done("vms", "scale", "one", "--cpu", "2");
  assert.deepEqual(running.useCases.configs.get("one").config.resources, { cpu_cores: 2, memory_mb: 256 });
  running.move("one", "running");
  assert.match(await done("vms", "scale", "one", "--memory", "512M", "--restart"), /^status: +pending$/m);
});
