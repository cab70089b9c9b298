import assert from "node:assert/strict";
import test from "node:test";
import { isAsPrinted, tutorialSteps } from "./tutorial-steps.ts";

const fence = "```";

test("a tutorial's files and commands are read in their order, and a block that is neither is refused", () => {
  const document = [
    "A file,",
    "",
    "`tree/a.sh`",
    "",
    `${fence}sh`,
    "echo a",
    fence,
    "",
    `${fence}console`,
    "$ sh tree/a.sh",
    "a",
    "$ true",
    fence,
    "",
  ].join("\n");
  assert.deepEqual(tutorialSteps(document), [
    { kind: "file", path: "tree/a.sh", text: "echo a\n" },
    { kind: "command", command: "sh tree/a.sh", printed: "a\n" },
    { kind: "command", command: "true", printed: "" },
  ]);
  assert.throws(() => tutorialSteps(`Words\n\n${fence}sh\nls\n${fence}\n`), /neither/);
});

test("what is printed must be what the tutorial says, but for what … stands for", () => {
  assert.ok(isAsPrinted("", "") && !isAsPrinted("", "a\n"));
  assert.ok(isAsPrinted("a.(b)\n", "a.(b)\n") && !isAsPrinted("a.b\n", "axb\n"));
  assert.ok(isAsPrinted("id: …, ok\n", "id: 17, ok\n") && !isAsPrinted("id: …\n", "id: 1\nmore\n"));
  assert.ok(isAsPrinted("…\nlast\n", "a\nb\nlast\n") && isAsPrinted("first\n…\n", "first\n"));
  assert.ok(!isAsPrinted("…\nlast\n", "a\nb\n"));
});
