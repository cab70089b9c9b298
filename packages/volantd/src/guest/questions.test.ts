import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import fc from "fast-check";
import { MAX_LINE_TO_AGENT_BYTES } from "./control-lines.ts";
import { fitsLine, Questions } from "./questions.ts";

const NONCE = "0123456789abcdef0123456789abcdef";
const broken = new VolantError("guest_unreachable", "the link broke");

interface Sent {
  readonly id: number;
  readonly path: string;
}

function asked() {
  const lines: string[] = [];
  const questions = new Questions(NONCE, (line) => lines.push(line));
  const sent = (): Sent[] => lines.map((line) => JSON.parse(line) as Sent);
  const answer = (id: number, body = {}) => questions.receive({ type: "answer", nonce: NONCE, id, status: 200, body });
  return { questions, lines, sent, answer };
}

test("each question gets its own answer, in whatever order they come, and answers to none are left alone", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.shuffledSubarray(
        Array.from({ length: 28 }, (_, at) => at),
        { minLength: 1 },
      ),
      async (order) => {
        const { questions, sent, answer } = asked();
        const waiting = Array.from({ length: 28 }, (_, at) => questions.ask({ method: "GET", path: `/${at}` }));
        const known = sent();
        answer(99_999);
        for (const at of order) {
          const { id = 0, path = "" } = known[at] ?? {};
          answer(id, { path });
          answer(id, { path: "again" });
        }
        for (const at of order) assert.deepEqual((await waiting[at])?.body, { path: `/${at}` });
        questions.end(broken);
        const rest = waiting.filter((_, at) => !order.includes(at));
        for (const result of await Promise.allSettled(rest)) {
          assert.ok(result.status === "rejected" && result.reason === broken);
        }
      },
    ),
    { numRuns: 50 },
  );
});

test("one question too many is refused, and the next is not once one was answered", async () => {
  const { questions, sent, answer } = asked();
  const waiting = Array.from({ length: 28 }, () => questions.ask({ method: "GET", path: "/" }));
  await assert.rejects(questions.ask({ method: "GET", path: "/" }), { code: "exhausted" });
  answer(sent()[5]?.id ?? 0);
  await waiting[5];
  const last = questions.ask({ method: "GET", path: "/last" });
  answer(sent().at(-1)?.id ?? 0);
  assert.equal((await last).status, 200);
  questions.end(broken);
  await Promise.allSettled(waiting);
});

test("a question that nobody waits for any more counts until it is answered: the agent still has it", async () => {
  const { questions, sent, answer } = asked();
  const abort = new AbortController();
  const { signal } = abort;
  const waiting = Array.from({ length: 28 }, () => questions.ask({ method: "GET", path: "/", signal }));
  abort.abort(new Error("enough"));
  for (const result of await Promise.allSettled(waiting)) {
    assert.ok(result.status === "rejected" && (result.reason as Error).message === "enough");
  }
  await assert.rejects(questions.ask({ method: "GET", path: "/" }), { code: "exhausted" });
  await assert.rejects(questions.ask({ method: "GET", path: "/", signal }), { message: "enough" });
  answer(sent()[0]?.id ?? 0);
  const next = questions.ask({ method: "GET", path: "/" });
  answer(sent().at(-1)?.id ?? 0);
  assert.equal((await next).status, 200);
});

test("after the session's end nothing is sent", async () => {
  const { questions, lines } = asked();
  questions.end(broken);
  await assert.rejects(questions.ask({ method: "GET", path: "/" }), broken);
  assert.deepEqual(lines, []);
});

test("a body that is said to fit makes a line that an agent takes", () => {
  const { questions, lines } = asked();
  const body = (length: number) => JSON.stringify({ text: "ü".repeat(length) });
  let length = 30_000;
  while (fitsLine(body(length + 1))) length += 1;
  assert.ok(length > 30_000);
  void questions.ask({ method: "PUT", path: "/v1/config", body: body(length) });
  assert.ok(Buffer.byteLength(lines[0] ?? "") <= MAX_LINE_TO_AGENT_BYTES);
});
