/** Completion as a shell asks for it: the real program against a real API, and a real bash. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";
import { runToEnd, type Finished } from "./testing/run-volar.ts";

const program = join(import.meta.dirname, "../../../bin/volar");
let running: RunningApi;
let folder: string;

before(async () => {
  running = await runApi({ apiKey: "k" });
  for (const name of ["frontend", "backend"]) await running.useCases.vms.create({ name });
  await running.useCases.deployments.create({ name: "shop", config: {} });
  folder = mkdtempSync(join(tmpdir(), "volar-completion-"));
  // Says what it was called with, where it is not asked about completion.
  const wrapper = `#!/bin/sh\ncase $1 in completion | __complete) exec "${program}" "$@" ;; esac\necho "CALLED: $*"\n`;
  writeFileSync(join(folder, "volar"), wrapper);
  chmodSync(join(folder, "volar"), 0o755);
});
after(async () => {
  rmSync(folder, { recursive: true });
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

async function runIn(
  env: Record<string, string>,
  command: string,
  args: readonly string[],
  input = "",
): Promise<Finished> {
  return runToEnd(command, args, {
    cwd: folder,
    input,
    env: {
      PATH: `${folder}:${process.env["PATH"]}`,
      HOME: folder,
      TERM: "dumb",
      VOLANT_API_BASE: running.address,
      VOLANT_API_KEY: "k",
      VOLANT_COMPLETION_TIMEOUT: "60s",
      ...env,
    },
  });
}

async function candidates(...words: string[]): Promise<string[]> {
  const { code, stdout, stderr } = await runIn({}, program, ["__complete", "--", ...words]);
  assert.deepEqual([code, stderr], [0, ""]);
  return stdout.split("\n").flatMap((line) => (line === "" ? [] : [line.split("\t", 1)[0] ?? ""]));
}

test("live names are completed: VMs, deployments, both where both belong, without those that stand there", async () => {
  assert.deepEqual(await candidates("vms", "get", "fr"), ["frontend"]);
  for (const verb of ["operations", "call", "console"]) {
    assert.deepEqual(await candidates("vms", verb, "fr"), ["frontend"], verb);
  }
  assert.deepEqual(await candidates("vms", "delete", "frontend", ""), ["backend"]);
  assert.deepEqual((await candidates("vms", "scale", "")).toSorted(), ["backend", "frontend", "shop"]);
  assert.deepEqual(await candidates("vms", "cp", "b"), ["backend:", ":files"]);
  assert.deepEqual(await candidates("events", "--vm=b"), ["--vm=backend"]);
});

test("the address and the key on the line are those that are asked", async () => {
  const away = { VOLANT_API_BASE: "http://127.0.0.1:9", VOLANT_API_KEY: "wrong" };
  const words = ["--api", running.address, "--api-key=k", "vms", "get", "f"];
  const { stdout } = await runIn(away, program, ["__complete", "--", ...words]);
  assert.equal(stdout, "frontend\t\n");
});

test("without volantd, with one that does not answer, or with a wrong key, names are missing and nothing is said", async () => {
  const silent = createServer(() => undefined).listen(0, "127.0.0.1");
  await once(silent, "listening");
  const hanging = {
    VOLANT_API_BASE: `http://127.0.0.1:${(silent.address() as AddressInfo).port}`,
    VOLANT_COMPLETION_TIMEOUT: "100ms",
  };
  const away = [{ VOLANT_API_BASE: "http://127.0.0.1:9" }, { VOLANT_API_KEY: "wrong" }, { VOLANT_API_BASE: "?" }];
  for (const env of [...away, hanging]) {
    const finished = await runIn(env, program, ["__complete", "--", "vms", "get", ""]);
    assert.deepEqual(finished, { code: 0, stdout: "", stderr: "" });
  }
  silent.closeAllConnections();
  silent.close();
});

/** What the script's function leaves for bash, as if Tab were pressed at the end of the line. */
async function bashReply(line: string): Promise<string[]> {
  const script =
    'source <(volar completion bash); COMP_LINE=$1 COMP_POINT=${#1}; _volar_complete; printf "%s\\n" "${COMPREPLY[@]}"';
  const { code, stdout, stderr } = await runIn({}, "bash", ["--norc", "--noprofile", "-c", script, "bash", line]);
  assert.deepEqual([code, stderr], [0, ""]);
  return stdout.split("\n").filter((word) => word !== "");
}

test("bash gets the rest of a word behind its word breaks, = and :", async () => {
  assert.deepEqual(await bashReply("volar vms list --output=j"), ["json"]);
  assert.deepEqual(await bashReply("volar vms list --output j"), ["json"]);
  assert.deepEqual(await bashReply("volar vms cp fron"), ["frontend:"]);
  assert.deepEqual(await bashReply("volar vms cp frontend:/etc/ho"), []);
  assert.deepEqual(await bashReply("volar depl"), ["deployments"]);
  assert.deepEqual((await bashReply("volar vms get ")).toSorted(), ["backend", "frontend"]);
});

test("a Tab in an interactive bash completes command, name and flag", async () => {
  const keys = "PS1=; source <(volar completion bash)\nvolar vm\tge\tfr\t--out\tj\t\nexit\n";
  const { stdout } = await runIn({}, "script", ["-qec", "bash --norc --noprofile -i", "/dev/null"], keys);
  assert.match(stdout, /^CALLED: vms get frontend --output json\s*$/m);
});

test("each shell has a script; another is refused, and told which there are", async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const { code, stdout } = await runIn({}, program, ["completion", shell]);
    assert.equal(code, 0);
    assert.match(stdout, /__complete -- /);
    assert.match(
      stdout,
      new RegExp(String.raw`source <\(volar completion ${shell}\)|volar completion ${shell} \| source`),
    );
  }
  const { code, stderr } = await runIn({}, program, ["completion", "csh"]);
  assert.equal(code, 2);
  assert.match(stderr, /Allowed choices are bash, zsh, fish/);
});
