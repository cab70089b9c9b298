import assert from "node:assert/strict";
import test from "node:test";
import { workloadAddress } from "./workload-address.ts";

test("a base URL says where in the guest the workload listens", () => {
  const cases: [string | undefined, string | undefined][] = [
    ["http://127.0.0.1:8080", "127.0.0.1 8080 127.0.0.1:8080"],
    ["http://0.0.0.0/app", "127.0.0.1 80 0.0.0.0"],
    ["http://localhost:1", "127.0.0.1 1 localhost:1"],
    ["http://[::]:9", "127.0.0.1 9 [::]:9"],
    ["http://[::1]:9", "::1 9 [::1]:9"],
    ["http://10.0.0.2", "10.0.0.2 80 10.0.0.2"],
    ["https://127.0.0.1", undefined],
    ["nonsense", undefined],
    [undefined, undefined],
  ];
  for (const [baseUrl, expected] of cases) {
    const found = workloadAddress(baseUrl);
    assert.equal(found && `${found.address} ${found.port} ${found.authority}`, expected, baseUrl);
  }
});
