/** Orders that meet each other: one defined outcome each. The rows of docs/vm-lifecycle.md, each with its proof. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import type { RestartPolicy, Vm } from "@volant/contract";
import { Bench, request, type Running } from "../testing/engine-bench.ts";

const PATIENCE = { timeoutMs: 10_000 };
const NEVER_SOON = { firstMs: 600_000, lastMs: 600_000, steadyMs: 600_000 };

interface Scene extends Running {
  readonly bench: Bench;
  readonly id: number;
  /** The VM now. */
  vm(): Vm;
  /** Resolves when a pass of the VM has left it so. */
  until(done: () => boolean): Promise<void>;
}

interface Row {
  readonly during: string;
  readonly order: string;
  readonly outcome: string;
  readonly proof: (scene: Scene) => Promise<void>;
  /** What the VM is when the proof begins: just asked for, or running. */
  readonly begins?: "pending";
  readonly restart?: RestartPolicy;
}

const again = { code: "wrong_state" };

/** A stop that is under way, and its outcome. */
function stopping({ vms }: Scene): Promise<string> {
  return vms.stop("web").then(
    ({ status }) => status,
    (error: Error & { readonly code?: string }) => `${error.code}: ${error.message}`,
  );
}

function deleting({ vms }: Scene): Promise<void> {
  return vms.delete("web");
}

/** Ends its process by itself, and resolves when it is to be started again. */
async function crash(scene: Scene): Promise<void> {
  const { bench, until, vm } = scene;
  bench.host.end(vm().pid ?? 0, "host-signal");
  await until(() => vm().status === "crashed" && vm().next_restart_at !== undefined);
}

const ROWS: readonly Row[] = [
  {
    during: "create",
    order: "create of the same name",
    outcome: "409 `exists`",
    begins: "pending",
    proof: async ({ vms }) => assert.rejects(vms.create(request("web")), { code: "exists" }),
  },
  {
    during: "create",
    order: "the same create with the same `Idempotency-Key`",
    outcome: "201 with the VM as first made; there is one VM",
    begins: "pending",
    proof: async ({ vms, bench }) => {
      const both = [vms.create(request("other"), "key-1"), vms.create(request("other"), "key-1")];
      const [first, second] = await Promise.all(both);
      assert.deepEqual(second, first);
      assert.deepEqual(await vms.create(request("other"), "key-1"), first);
      assert.equal(bench.store.vmIds().length, 2);
    },
  },
  {
    during: "create",
    order: "delete",
    outcome: "it is deleted; who waits for the create gets 404",
    begins: "pending",
    proof: async (scene) => {
      const waits = assert.rejects(scene.vms.wait("web", "running", PATIENCE), { code: "not_found" });
      await deleting(scene);
      await waits;
      assert.deepEqual(scene.bench.store.vmIds(), []);
    },
  },
  {
    during: "start",
    order: "start",
    outcome: "409 `wrong_state`; the first goes on",
    begins: "pending",
    proof: async ({ vms, bench, id }) => {
      await assert.rejects(vms.start("web"), again);
      assert.equal(bench.store.getVm(id)?.generation, 1);
    },
  },
  {
    during: "start",
    order: "stop",
    outcome: "it is stopped; who waits for the start gets 409",
    begins: "pending",
    proof: async (scene) => {
      const waits = assert.rejects(scene.vms.wait("web", "running", PATIENCE), again);
      assert.equal(await stopping(scene), "stopped");
      await waits;
    },
  },
  {
    during: "start",
    order: "restart",
    outcome: "it is started anew; who waits sees the new start",
    begins: "pending",
    proof: async ({ vms, bench, id }) => {
      const waits = vms.wait("web", "running", PATIENCE);
      await vms.restart("web");
      assert.equal(await waits, true);
      assert.equal(bench.store.getVm(id)?.runningGeneration, 2);
    },
  },
  {
    during: "start",
    order: "PATCH of the configuration",
    outcome: "written; in force from the next start, and `pending` until then",
    begins: "pending",
    proof: async ({ vms, configs, bench, id }) => {
      const { pending } = await configs.patch("web", { resources: { memory_mb: 256 } });
      assert.equal(pending, true);
      assert.equal(await vms.wait("web", "running", PATIENCE), true);
      assert.deepEqual([vms.get("web").memory_mb, bench.store.getVm(id)?.generation], [128, 1]);
    },
  },
  {
    during: "running",
    order: "start",
    outcome: "409 `wrong_state`",
    proof: async ({ vms }) => assert.rejects(vms.start("web"), again),
  },
  {
    during: "stop",
    order: "stop",
    outcome: "both are answered when it is stopped",
    proof: async (scene) => {
      assert.deepEqual(await Promise.all([stopping(scene), stopping(scene)]), ["stopped", "stopped"]);
    },
  },
  {
    during: "stop",
    order: "start, restart",
    outcome: "it is started once its old process has ended; who waits for the stop gets 409",
    proof: async (scene) => {
      const { vms, bench, id } = scene;
      const stop = stopping(scene);
      await vms.start("web");
      assert.match(await stop, /^wrong_state: .* was given another order/);
      assert.equal(await vms.wait("web", "running", PATIENCE), true);
      assert.equal(bench.store.getVm(id)?.runningGeneration, 2);
      const stopAgain = stopping(scene);
      await vms.restart("web");
      assert.match(await stopAgain, /^wrong_state: /);
      assert.equal(await vms.wait("web", "running", PATIENCE), true);
    },
  },
  {
    during: "stop",
    order: "delete",
    outcome: "it is deleted; who waits for the stop gets 404 or 409",
    proof: async (scene) => {
      const stop = stopping(scene);
      await deleting(scene);
      assert.match(await stop, /^(wrong_state|not_found): /);
      assert.deepEqual(scene.bench.store.vmIds(), []);
    },
  },
  {
    during: "delete",
    order: "delete",
    outcome: "both are answered when it is gone",
    proof: async (scene) => {
      await Promise.all([deleting(scene), deleting(scene)]);
      assert.deepEqual(scene.bench.store.vmIds(), []);
    },
  },
  {
    during: "delete",
    order: "start, stop, restart, PATCH",
    outcome: "409 `wrong_state`",
    proof: async (scene) => {
      const { vms, configs } = scene;
      const gone = deleting(scene);
      for (const order of [vms.start("web"), vms.stop("web"), vms.restart("web"), configs.patch("web", { env: {} })]) {
        await assert.rejects(order, again);
      }
      await gone;
    },
  },
  {
    during: "delete",
    order: "create of the same name",
    outcome: "409 `exists` until it is gone",
    proof: async (scene) => {
      const gone = deleting(scene);
      await assert.rejects(scene.vms.create(request("web")), { code: "exists" });
      await gone;
      await scene.vms.create(request("web"));
      assert.equal(await scene.vms.wait("web", "running", PATIENCE), true);
    },
  },
  {
    during: "waiting to be started again",
    order: "start, restart",
    outcome: "it is started at once, and its failures are forgotten",
    restart: "always",
    proof: async (scene) => {
      for (const order of ["start", "restart"] as const) {
        await crash(scene);
        await scene.vms[order]("web");
        assert.equal(await scene.vms.wait("web", "running", PATIENCE), true);
        assert.deepEqual([scene.vm().restarts, scene.bench.store.getVm(scene.id)?.failures], [0, 0]);
      }
    },
  },
  {
    during: "waiting to be started again",
    order: "stop",
    outcome: "it is `stopped`, and stays so",
    restart: "always",
    proof: async (scene) => {
      await crash(scene);
      assert.equal(await stopping(scene), "stopped");
      assert.equal(scene.vm().next_restart_at, undefined);
    },
  },
  {
    during: "waiting to be started again",
    order: "delete",
    outcome: "it is deleted",
    restart: "always",
    proof: async (scene) => {
      await crash(scene);
      await deleting(scene);
      assert.deepEqual(scene.bench.store.vmIds(), []);
    },
  },
  {
    during: "waiting to be started again",
    order: "PATCH of `restart` to `no`",
    outcome: "it stays as it is; back to `always` or `on-failure`, it is started again",
    restart: "always",
    proof: async (scene) => {
      await crash(scene);
      await scene.configs.patch("web", { restart: "no" });
      assert.deepEqual([scene.vm().status, scene.vm().next_restart_at], ["crashed", undefined]);
      await scene.configs.patch("web", { restart: "always" });
      await scene.until(() => scene.vm().next_restart_at !== undefined);
    },
  },
  {
    during: "any wait",
    order: "the client hangs up, or its time is up",
    outcome: "nothing changes: what it asked for goes on",
    begins: "pending",
    proof: async ({ vms, bench, id }) => {
      const gone = new AbortController();
      const waits = vms.wait("web", "running", { ...PATIENCE, signal: gone.signal });
      gone.abort();
      assert.equal(await waits, false);
      assert.equal(await vms.wait("web", "running", { timeoutMs: 0 }), false);
      assert.equal(await vms.wait("web", "running", PATIENCE), true);
      assert.equal(bench.store.getVm(id)?.generation, 1);
    },
  },
];

for (const { during, order, outcome, proof, begins, restart } of ROWS) {
  test(`during ${during}: ${order} → ${outcome}`, async () => {
    const bench = new Bench();
    bench.restartTimes = NEVER_SOON;
    const running = await bench.open();
    const config = restart === undefined ? {} : { config: { restart } };
    const { id } = await running.vms.create({ ...request("web"), ...config });
    if (begins !== "pending") await bench.settle(running);
    const scene: Scene = {
      ...running,
      bench,
      id,
      vm: () => running.vms.get("web"),
      until: (done) => running.engine.until(id, done, PATIENCE.timeoutMs, "it does not come to this"),
    };
    await proof(scene);
    for (const vm of running.vms.list({}).vms) await running.vms.delete(vm.name);
    bench.assertAgreement();
    await running.engine.close();
    bench.store.close();
  });
}

test("docs/vm-lifecycle.md has these rows and no others", () => {
  const text = readFileSync(join(import.meta.dirname, "../../../../docs/vm-lifecycle.md"), "utf8");
  const table = text.slice(text.indexOf("| during |"));
  const rows = table.split("\n").filter((line) => line.startsWith("|"));
  assert.deepEqual(
    rows.slice(2),
    ROWS.map(({ during, order, outcome }) => `| ${during} | ${order} | ${outcome} |`),
  );
});
