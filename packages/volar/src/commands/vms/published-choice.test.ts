import assert from "node:assert/strict";
import test from "node:test";
import { gatherHostPorts, remainingPorts } from "./published-choice.ts";

const published = (address: string, hostPort: number) =>
  ({ protocol: "tcp", port: 80, host_address: address, host_port: hostPort, listening: true }) as const;

test("ports are chosen by their number, or by address and number; the chosen one may be one that volantd chose", () => {
  const expose = [{ port: 80 }, { port: 80, host_port: 8080 }, { port: 80, host_port: 8080, host_address: "::1" }];
  const shown = [published("127.0.0.1", 20_000), published("127.0.0.1", 8080), published("::1", 8080)];
  const rest = (...texts: string[]) => {
    const chosen = texts.reduce(
      (before: ReturnType<typeof gatherHostPorts>, text) => gatherHostPorts(text, before),
      [],
    );
    const outcome = remainingPorts(expose, shown, chosen);
    return outcome.missing?.text ?? outcome.rest.map((entry) => expose.indexOf(entry));
  };
  assert.deepEqual(rest("20000"), [1, 2]);
  assert.deepEqual(rest("8080"), [0]);
  assert.deepEqual(rest("[::1]:8080"), [0, 1]);
  assert.deepEqual(rest("127.0.0.1:8080", "20000"), [2]);
  assert.equal(rest("8080", "81"), "81");
});

test("what is no port of a host is refused", () => {
  for (const text of ["", "0", "65536", "8080:80x", "::1:80", "host:80"]) {
    assert.throws(() => gatherHostPorts(text, undefined), { code: "commander.invalidArgument" }, text);
  }
});
