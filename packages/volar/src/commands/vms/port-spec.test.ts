import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { createRequest } from "./create-request.ts";
import { formatPortSpec, gatherPorts, parsePortSpec } from "./port-spec.ts";

test("a port is written as people know it, from the guest's alone to an address of the host", () => {
  assert.deepEqual(parsePortSpec("80"), { port: 80 });
  assert.deepEqual(parsePortSpec("8080:80"), { port: 80, host_port: 8080 });
  assert.deepEqual(parsePortSpec("8080:80/TCP"), { port: 80, host_port: 8080, protocol: "tcp" });
  assert.deepEqual(parsePortSpec("53:53/udp").protocol, "udp", "the server says that it can't");
  assert.deepEqual(parsePortSpec("0.0.0.0:8080:80"), { port: 80, host_port: 8080, host_address: "0.0.0.0" });
  assert.deepEqual(parsePortSpec("10.0.0.1::80"), { port: 80, host_address: "10.0.0.1" });
  assert.deepEqual(parsePortSpec("[::1]:8080:80"), { port: 80, host_port: 8080, host_address: "::1" });
  assert.deepEqual(gatherPorts("81", gatherPorts("80", undefined)), [{ port: 80 }, { port: 81 }]);
});

test("what is no port is refused", () => {
  const wrong = [
    "",
    ":",
    "0",
    "65536",
    "0:80",
    "8080:",
    "::1:8080:80",
    "[::1]:80",
    "80-81:80",
    "8080:80/sctp",
    "a:b",
    " 80",
    "1:2:3:4",
  ];
  for (const text of wrong) assert.throws(() => parsePortSpec(text), { code: "commander.invalidArgument" }, text);
});

test("whatever can be asked for can be written, and is read back as it was", () => {
  const port = fc.integer({ min: 1, max: 65_535 });
  const entry = fc.record(
    {
      port,
      host_port: port,
      host_address: fc.oneof(
        fc.ipV4(),
        fc.ipV6().filter((text) => text.includes(":")),
      ),
      protocol: fc.constantFrom("tcp" as const, "udp" as const),
    },
    { requiredKeys: ["port"] },
  );
  fc.assert(fc.property(entry, (given) => assert.deepEqual(parsePortSpec(formatPortSpec(given)), { ...given })));
});

test("ports of flags are published beside those of the file", () => {
  const publish = gatherPorts("8080:80", undefined);
  assert.deepEqual(createRequest("a", { publish }), { name: "a", config: { expose: [{ port: 80, host_port: 8080 }] } });
  assert.deepEqual(createRequest("a", { publish }, { expose: [{ port: 81 }] }).config?.expose, [
    { port: 81 },
    { port: 80, host_port: 8080 },
  ]);
});
