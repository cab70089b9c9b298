/**
 * Requests that schemathesis makes from docs/openapi.json, against a real volantd: every answer is one that the document promises. On demand, for it takes
 * minutes: `npm test -- schemathesis`. VOLANT_SCHEMATHESIS_SEED makes other requests.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { runVolantd, type RunningVolantd } from "../../packages/volantd/src/testing/run-volantd.ts";
import { enterOwnNamespace } from "../namespace.ts";
import { root, runProgram, type Finished } from "../vm/house.ts";
import { installSchemathesis } from "./install.ts";

// Not before the program is there: a namespace of its own has no network.
const program = await installSchemathesis();
enterOwnNamespace(import.meta.url);

const KEY = "the-operators-own-key-0123456789";
const SEED = process.env["VOLANT_SCHEMATHESIS_SEED"] ?? "1";

const CHECKS = [
  "not_a_server_error",
  "status_code_conformance",
  "content_type_conformance",
  "response_headers_conformance",
  "response_schema_conformance",
];

/** What does not end by itself (events, logs), speaks another protocol or is a guest's, and what would take devices from the host that the tests run on. */
const LEFT_OUT =
  "^(events\\.vms|mcp\\..*|vms\\.(exec|forward|console|logs)(\\.socket)?|vms\\.agent\\..*|vfio\\.(bind|unbind))$";

let folder: string;
let volantd: RunningVolantd | undefined;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "schemathesis-"));
  volantd = await runVolantd({ VOLANT_API_KEY: KEY, VOLANT_API_RATE: "off" });
});
after(async () => {
  await volantd?.close();
  rmSync(folder, { recursive: true });
});

/** Runs it with what it is to be held to. It keeps what it learns in its working directory, which goes with the test. */
function schemathesis(document: string, ...args: string[]): Promise<Finished> {
  const fixed = ["--config-file", join(import.meta.dirname, "schemathesis.toml"), "run", document];
  const run = ["--url", volantd?.address ?? "", "--header", `X-Volant-API-Key: ${KEY}`, "--request-timeout", "60"];
  const how = ["--checks", CHECKS.join(","), "--seed", SEED, "--generation-database", "none", "--warnings", "off"];
  return runProgram(program, [...fixed, ...run, ...how, "--no-color", ...args], process.env, folder);
}

const document = join(root, "docs/openapi.json");

test("no request made from the OpenAPI document gets a status, a type, a header or a body that the document does not promise", async () => {
  const phases = ["--phases", "coverage,fuzzing", "--max-examples", "20", "--continue-on-failure"];
  const { code, stdout, stderr } = await schemathesis(document, ...phases, "--exclude-operation-id-regex", LEFT_OUT);
  assert.equal(code, 0, `${stdout.slice(-12_000)}\n${stderr}\nvolantd said:\n${volantd?.log().slice(-3000)}`);
  process.stdout.write(`${/\d+ generated, \d+ passed/.exec(stdout)?.[0] ?? ""}\n`);
});

test("that would be seen: a document that promises less than volantd does is not kept to", async () => {
  const less = JSON.parse(readFileSync(document, "utf8")) as {
    paths: Record<string, Record<string, { responses: Record<string, unknown> }>>;
  };
  const operation = less.paths["/api/v1/vms/{name}"]?.["get"];
  assert.ok(operation?.responses["404"] !== undefined);
  delete operation.responses["404"];
  const path = join(folder, "less.json");
  writeFileSync(path, JSON.stringify(less));
  const { code, stdout } = await schemathesis(
    path,
    "--phases",
    "fuzzing",
    "--max-examples",
    "5",
    "--include-operation-id",
    "vms.get",
  );
  assert.equal(code, 1, stdout);
  assert.match(stdout, /Undocumented status code/);
});
