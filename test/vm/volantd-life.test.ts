/** volantd and its VMs, through kills, restarts and human hands, with real guests. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm, VmEvent } from "@volant/contract";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { fetchInTime } from "../patience.ts";
import { type House, openHouse, vmEntries } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";
import { type Watch, watchUntil } from "./watch-events.ts";

enterOwnNamespace(import.meta.url);

const base = "http://127.0.0.1:7777";
const workload = 'echo "hello from the workload"; exec /bin/busybox httpd -f -p 80 -h /www';
let house: House;

before(async () => {
  house = await openHouse();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  const changes = { workload: { base_url: "http://127.0.0.1:80", entrypoint: ["/bin/busybox", "sh", "-c", workload] } };
  await house.volarDone("plugins", "install", buildProbePlugin(directory, changes));
});

after(async () => {
  await house?.close();
});

const taps = (): string[] =>
  ipJson("link", "show").flatMap((link) =>
    String(link["ifname"]).startsWith("vttap-") ? [String(link["ifname"])] : [],
  );

async function order(method: string, path: string, body?: object): Promise<Response> {
  return fetchInTime(`${base}/api/v1/${path}`, {
    method,
    ...(body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
}

async function assertNothingLeft(): Promise<void> {
  assert.deepEqual(await house.vms(), []);
  assert.deepEqual(taps(), []);
  assert.deepEqual(await house.hypervisors(), []);
  assert.doesNotMatch(ip("neigh", "show", "dev", "vbr0"), /PERMANENT/);
  assert.deepEqual(vmEntries(join(house.directory, "run")), []);
}

test("a VM's way from pending to running is told in events, its workload's lines too, and they are in its log once", async () => {
  const events = await watchUntil(base, ({ type }) => type === "VM_RUNNING");
  const lines = await watchUntil(base, ({ type, line }) => type === "VM_LOG" && line === "hello from the workload");
  await house.volarDone("vms", "create", "web", "--plugin", "probe", "--wait");
  const told = (await events.seen).filter(({ type }) => type !== "VM_LOG");
  assert.deepEqual(
    [told[0]?.type, told[0]?.status, told.at(-1)?.status, told.at(-1)?.ip_address],
    ["VM_CREATED", "pending", "running", "192.168.127.2"],
  );
  assert.ok(told.some(({ status, reason }) => status === "starting" && reason === "waiting_for_agent"));
  await lines.seen;
  const log = join(house.directory, "logs/web.log");
  assert.match(readFileSync(log, "utf8"), /^\S+Z stdout hello from the workload$/m);
  await house.stopVolantd("SIGKILL");
  await house.startVolantd();
  const again = await watchUntil(base, ({ type }) => type === "VM_STOPPED");
  await house.volarDone("vms", "stop", "web");
  await again.seen;
  assert.equal(readFileSync(log, "utf8").match(/hello from the workload/g)?.length, 1);
});

test("a restart is a new process at the old address", async () => {
  await house.volarDone("vms", "start", "web", "--wait");
  const before = await house.api<Vm>("/api/v1/vms/web");
  await house.volarDone("vms", "restart", "web", "--wait");
  const after = await house.api<Vm>("/api/v1/vms/web");
  assert.notEqual(after.pid, before.pid);
  assert.equal(after.ip_address, before.ip_address);
  assert.deepEqual(await house.hypervisors(), [after.pid]);
  assert.equal(await (await fetchInTime(`http://${after.ip_address}/`)).text(), "probe\n");
});

test("a tap and a neighbour entry that someone took away are seen; what can be repaired live is, and a restart does the rest", async () => {
  const noticed = await watchUntil(base, ({ reason }) => /vttap-web was removed/.test(reason ?? ""));
  ip("link", "delete", "vttap-web");
  await noticed.seen;
  const restored = await watchUntil(base, ({ type }) => type === "VM_RUNNING");
  assert.equal((await order("POST", "vms/web/restart")).status, 200);
  await restored.seen;
  assert.equal(await (await fetchInTime("http://192.168.127.2/")).text(), "probe\n");
  ip("link", "set", "vttap-web", "nomaster");
  // The repair shows as the guest's answer: nothing else would join the tap to the bridge again.
  assert.equal(await (await fetchInTime("http://192.168.127.2/")).text(), "probe\n");
  assert.equal(ipJson("link", "show", "dev", "vttap-web")[0]?.["master"], "vbr0");
  await house.volarDone("vms", "delete", "web");
  await assertNothingLeft();
  assert.equal(existsSync(join(house.directory, "logs/web.log")), false, "the log goes with its VM");
});

test("a hypervisor that is killed is told as a crash, with the last lines of the console", async () => {
  await house.volarDone("vms", "create", "doomed", "--plugin", "probe", "--wait");
  const events = await watchUntil(base, ({ type }) => type === "VM_CRASHED");
  process.kill((await house.api<Vm>("/api/v1/vms/doomed")).pid ?? 0, "SIGKILL");
  const crash = (await events.seen).at(-1);
  assert.ok(crash?.message !== undefined && crash.message.split("\n").length > 1, crash?.message);
  await house.stopVolantd("SIGKILL");
  await house.startVolantd();
  const vm = await house.api<Vm>("/api/v1/vms/doomed");
  assert.equal(vm.status, "crashed", "it stays down until it is started");
  await house.volarDone("vms", "delete", "doomed");
  await assertNothingLeft();
});

test("a VM that crashes while volantd is down is found crashed", async () => {
  await house.volarDone("vms", "create", "doomed", "--plugin", "probe", "--wait");
  const { pid } = await house.api<Vm>("/api/v1/vms/doomed");
  await house.stopVolantd("SIGKILL");
  process.kill(pid ?? 0, "SIGKILL");
  await house.startVolantd();
  await house.volarDone("vms", "wait", "doomed", "--status", "crashed");
  await house.volarDone("vms", "delete", "doomed");
  await assertNothingLeft();
});

test("volantd killed in the middle of a create, wherever it was, finishes it after its next start; killed in a delete, it finishes that", async () => {
  for (const [index, moment] of ["VM_CREATED", "starting", "VM_RUNNING"].entries()) {
    const name = `cut-${index}`;
    const reached = await watchUntil(base, ({ type, status }) => type === moment || status === moment);
    assert.equal((await order("POST", "vms", { name, plugin: "probe" })).status, 201);
    await reached.seen;
    await house.stopVolantd("SIGKILL");
    await house.startVolantd();
    await house.volarDone("vms", "wait", name);
    assert.equal((await house.hypervisors()).length, 1, "one process, never two");
    const begun = await watchUntil(base, ({ reason }) => reason === "deleting");
    const deletion = order("DELETE", `vms/${name}`).catch(() => undefined);
    await begun.seen;
    await house.stopVolantd("SIGKILL");
    await deletion;
    await house.startVolantd();
    assert.ok([204, 404].includes((await order("DELETE", `vms/${name}`)).status));
    await assertNothingLeft();
  }
});

test("what carries another mark, or none, is left alone", async () => {
  ip("link", "add", "vttap-other", "type", "ifb");
  ip("link", "set", "vttap-other", "alias", "volant:00000000:1");
  const response = await order("POST", "vms", { name: "other", plugin: "probe" });
  assert.equal(response.status, 409);
  assert.match(((await response.json()) as { error: string }).error, /vttap-other/);
  await house.stopVolantd();
  await house.startVolantd();
  assert.deepEqual(taps(), ["vttap-other"]);
  ip("link", "delete", "vttap-other");
  await assertNothingLeft();
});

/** What a watch saw, unless it takes longer than anything should. */
async function within(what: string, { seen }: Watch): Promise<VmEvent[]> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    void house.vms().then((vms) => late.reject(new Error(`${what}: not told within 3 min: ${JSON.stringify(vms)}`)));
  }, 180_000);
  try {
    return await Promise.race([seen, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

test("a guest that stands still is told as silent until it goes on; one whose kernel panics is started again by its policy", async () => {
  await house.volarDone("vms", "create", "web", "--plugin", "probe", "--restart", "on-failure", "--wait");
  const { pid = 0 } = await house.api<Vm>("/api/v1/vms/web");
  const silent = await watchUntil(base, ({ reason }) => reason === "the guest's agent does not answer");
  process.kill(pid, "SIGSTOP");
  await within("the silence", silent);
  assert.equal((await house.api<Vm>("/api/v1/vms/web")).agent.responding, false);
  const answers = await watchUntil(base, ({ type, reason }) => type === "VM_UPDATED" && reason === undefined);
  process.kill(pid, "SIGCONT");
  await within("the answer", answers);
  const well = await house.api<Vm>("/api/v1/vms/web");
  assert.deepEqual([well.status, well.pid, well.restarts], ["running", pid, 0]);

  const again = await watchUntil(base, ({ type }) => type === "VM_RUNNING");
  // The connection breaks with the guest.
  await house.volar("vms", "exec", "web", "--", "/bin/busybox", "sh", "-c", "echo c > /proc/sysrq-trigger");
  const events = await within("the new start", again);
  const crash = events.find(({ type }) => type === "VM_CRASHED");
  assert.match(crash?.message ?? "", /^the guest's kernel panicked: sysrq triggered crash\n/);
  assert.match(crash?.message ?? "", /\nit is started again at \S+$/);
  const vm = await house.api<Vm>("/api/v1/vms/web");
  assert.deepEqual([vm.restarts, vm.restart], [1, "on-failure"]);
  assert.notEqual(vm.pid, pid);
  await house.volarDone("vms", "delete", "web");
  await assertNothingLeft();
});
