import assert from "node:assert/strict";
import test from "node:test";
import { ERROR_CODES, VolantError, type ErrorCode } from "@volant/contract/errors";
import { SeveralFailures } from "./failure.ts";
import { withNextStep, type Circumstances, type GivenName } from "./next-step.ts";

const vm = (name: string): GivenName => ({ name, nouns: ["vm"] });

function circumstances(given: readonly GivenName[], names: readonly string[] = []): Circumstances {
  return { command: "volar vms get", given, names: async () => names };
}

async function hint(error: VolantError, known: Circumstances): Promise<string | undefined> {
  return ((await withNextStep(error, known)) as VolantError).hint;
}

test("every error code has a next step, whatever the command line named", async () => {
  for (const code of Object.keys(ERROR_CODES) as ErrorCode[]) {
    for (const given of [[], [vm("web")], [vm("web"), vm("db")]]) {
      const said = await hint(new VolantError(code, "it is so"), circumstances(given));
      assert.match(said ?? "", /\w/, code);
    }
  }
});

test("an error's own hint stays, and a bug stays a bug", async () => {
  assert.equal(await hint(new VolantError("invalid", "x", { hint: "do y" }), circumstances([])), "do y");
  const bug = new Error("bug");
  assert.equal(await withNextStep(bug, circumstances([])), bug);
});

test("a name that does not exist brings the nearest that does; of several, each brings its own", async () => {
  const missing = (name: string) => new VolantError("not_found", `there is no VM "${name}"`);
  const known = circumstances([vm("wbe-1"), vm("nothing-like-it")], ["web-1", "db"]);
  assert.equal(await hint(missing("wbe-1"), known), "did you mean web-1?");
  const several = await withNextStep(new SeveralFailures(["wbe-1", "nothing-like-it"].map(missing)), known);
  assert.deepEqual(
    (several as SeveralFailures).errors.map((error) => (error as VolantError).hint),
    ["did you mean web-1?", "volar vms list shows what there is"],
  );
});

test("a name that exists is not corrected: what is missing is something else", async () => {
  const error = new VolantError("not_found", 'VM "web" has no version 9');
  assert.equal(await hint(error, circumstances([vm("web")], ["web", "wev"])), "volar vms list shows what there is");
});

test("what fails on this machine or in a guest is not blamed on the VM that was named", async () => {
  const known = circumstances([vm("web")], ["web"]);
  const said = await hint(new VolantError("not_found", "the guest has no file or directory /x"), known);
  assert.equal(said, "volar vms get --help shows what it takes");
});

test("where a VM is in trouble, the command that shows it is named", async () => {
  const error = new VolantError("wrong_state", 'VM "web" is started already');
  assert.equal(await hint(error, circumstances([vm("web")])), "volar vms get web shows its state");
});
