import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  canonicalAddress,
  chosenPorts,
  keepChosen,
  overlaps,
  wantedPorts,
  type PublishedPort,
} from "./published-port.ts";

test("a port is published on loopback unless an address is given, which is brought into one form", () => {
  const wanted = wantedPorts("VM", [
    { port: 80, host_port: 8080 },
    { name: "web", protocol: "tcp", port: 80, mode: "forward", host_address: "0:0::1", host_port: 8080 },
    { port: 80, host_address: "0.0.0.0" },
    { port: 80 },
  ]);
  assert.deepEqual(
    wanted.map(({ name, address, hostPort, guestPort }) => [name, address, hostPort, guestPort]),
    [
      [undefined, "127.0.0.1", 8080, 80],
      ["web", "::1", 8080, 80],
      [undefined, "0.0.0.0", undefined, 80],
      [undefined, "127.0.0.1", undefined, 80],
    ],
  );
});

test("UDP, other modes, what is no address, ports and names that are given twice: each is refused by its entry", () => {
  const cases: readonly [RegExp, string, Parameters<typeof wantedPorts>[1]][] = [
    [/expose\.0: only TCP ports can be published/, "not_supported", [{ port: 53, protocol: "udp" }]],
    [/expose\.0: mode "host" is not supported/, "not_supported", [{ port: 53, mode: "host" }]],
    [/expose\.0: host_address "localhost" is no IP/, "invalid", [{ port: 1, host_address: "localhost" }]],
    [/expose\.0: host_address "fe80::1%eth0"/, "invalid", [{ port: 1, host_address: "fe80::1%eth0" }]],
    [/host_address "::ffff:127\.0\.0\.1"/, "invalid", [{ port: 1, host_address: "::ffff:127.0.0.1" }]],
    [
      /expose\.1: port 0\.0\.0\.0:80 of the host is asked for twice/,
      "invalid",
      [
        { port: 1, host_port: 80 },
        { port: 2, host_port: 80, host_address: "0.0.0.0" },
      ],
    ],
    [
      /expose\.1: the name "a" is given twice/,
      "invalid",
      [
        { port: 1, name: "a" },
        { port: 2, name: "a" },
      ],
    ],
  ];
  for (const [message, code, expose] of cases) assert.throws(() => wantedPorts("VM", expose), { code, message });
});

test("listeners overlap on one port of one address, or where one of them has every address of its family", () => {
  const port = (address: string, hostPort = 80) => ({ address, hostPort, guestPort: 1 });
  assert.ok(overlaps(port("127.0.0.1"), port("127.0.0.1")));
  assert.ok(overlaps(port("0.0.0.0"), port("10.0.0.1")));
  assert.ok(overlaps(port("::1"), port("::")));
  for (const [a, b] of [
    [port("127.0.0.1"), port("127.0.0.2")],
    [port("127.0.0.1"), port("127.0.0.1", 81)],
    [port("0.0.0.0"), port("::")],
    [port("0.0.0.0"), port("::1")],
  ] as const) {
    assert.ok(!overlaps(a, b) && !overlaps(b, a), `${a.address} ${b.address}`);
  }
});

test("an address has one form, however it is written", () => {
  assert.equal(canonicalAddress("2001:DB8:0:0::1"), "2001:db8::1");
  assert.equal(canonicalAddress("10.1.2.3"), "10.1.2.3");
  for (const text of ["", ":", "1", "10.1.2", "01.2.3.4", "[::1]", "::1/64", "::g", "http://x"]) {
    assert.equal(canonicalAddress(text), undefined, text);
  }
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
      const once = canonicalAddress(text);
      if (once !== undefined) assert.equal(canonicalAddress(once), once);
    }),
  );
});

test("who asked for no port of the host keeps the one that was chosen, as long as nobody names it", () => {
  const current: PublishedPort[] = [
    { name: "a", guestPort: 80, address: "127.0.0.1", hostPort: 20_000 },
    { name: "b", guestPort: 80, address: "127.0.0.1", hostPort: 20_001 },
  ];
  const any = { guestPort: 80, address: "127.0.0.1" };
  const ports = (wanted: Parameters<typeof keepChosen>[0]) => keepChosen(wanted, current).map((port) => port.hostPort);
  assert.deepEqual(ports([{ ...any, name: "b" }, any]), [20_001, 20_000]);
  assert.deepEqual(ports([any, any, any]), [20_000, 20_001, undefined]);
  assert.deepEqual(ports([{ ...any, hostPort: 20_000 }, any]), [20_000, 20_001]);
  assert.deepEqual(ports([{ ...any, address: "0.0.0.0" }]), [undefined]);
});

test("ports are chosen on from the last one, round about, each that is free once", () => {
  const first = (taken: number[], after?: number) => chosenPorts(new Set(taken), after).next().value;
  assert.equal(first([]), 20_000);
  assert.equal(first([20_000, 20_002]), 20_001);
  assert.equal(first([20_001], 20_000), 20_002);
  assert.equal(first([], 29_999), 20_000);
  assert.equal(first([], 8080), 20_000);
  assert.equal(new Set(chosenPorts(new Set([20_005]), 25_000)).size, 9999);
});
