import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { GuestNetworkStatus } from "../guest/guest-status.ts";
import { formatAddress, parseAddress } from "./address.ts";
import { dhcpLease, leaseText } from "./dhcp-lease.ts";

const nobody = () => undefined;
const bound: GuestNetworkStatus = {
  applied: true,
  mode: "dhcp",
  address: "10.0.0.5",
  prefixLength: 24,
  gateway: "10.0.0.1",
  lease: { phase: "bound", server: "10.0.0.1", nameservers: ["10.0.0.1", "x"], domain: "lan" },
};

test("a guest that has said nothing has no lease, one that waits says why, one that is bound has its address", () => {
  assert.equal(dhcpLease(undefined, nobody), undefined);
  assert.equal(dhcpLease({ applied: true, address: "10.0.0.5", prefixLength: 24 }, nobody), undefined);
  const waiting = dhcpLease(
    { ...bound, lease: { phase: "waiting_for_lease", nameservers: [], reason: "silence" } },
    nobody,
  );
  assert.deepEqual([waiting?.address, waiting?.reason], [undefined, "silence"]);
  const lease = dhcpLease(bound, nobody);
  assert.equal(lease?.address, parseAddress("10.0.0.5"));
  assert.deepEqual(lease?.nameservers, [0x0a000001]);
  assert.equal(
    leaseText(lease),
    "address 10.0.0.5/24 by DHCP, from 10.0.0.1, gateway 10.0.0.1, name servers 10.0.0.1, domain lan",
  );
  assert.equal(leaseText(waiting), undefined);
});

test("an address that no station can have is no lease, whatever the guest says", () => {
  for (const [address, prefixLength] of [
    ["127.0.0.1", 8],
    ["0.0.0.0", 24],
    ["224.0.0.1", 24],
    ["255.255.255.255", 24],
    ["10.0.0.0", 24],
    ["10.0.0.255", 24],
    ["10.0.0.5", 0],
    ["10.0.0.5", 33],
    ["fe80::1", 64],
  ] as const) {
    const lease = dhcpLease({ ...bound, address, prefixLength }, nobody);
    assert.equal(lease?.phase, "waiting_for_lease", address);
    assert.equal(lease.address, undefined);
  }
  assert.equal(dhcpLease({ ...bound, applied: false, reason: "no route" }, nobody)?.reason, "no route");
});

test("an address that is known to be another's is refused, with whose it is", () => {
  const lease = dhcpLease(bound, (address) => (formatAddress(address) === "10.0.0.5" ? "this host's" : undefined));
  assert.deepEqual([lease?.address, lease?.reason], [undefined, "the guest reports 10.0.0.5, which is this host's"]);
});

test("every address that is shown lies inside its subnet, and neither at its beginning nor at its end", () => {
  const address = fc.integer({ min: 0, max: 2 ** 32 - 1 }).map(formatAddress);
  fc.assert(
    fc.property(address, fc.integer({ min: 0, max: 40 }), (text, prefixLength) => {
      const lease = dhcpLease({ ...bound, address: text, prefixLength }, nobody);
      if (lease?.address === undefined) return;
      const size = 2 ** (32 - prefixLength);
      const host = lease.address % size;
      assert.ok(size <= 2 || (host > 0 && host < size - 1));
    }),
  );
});
