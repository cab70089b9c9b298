import assert from "node:assert/strict";
import test from "node:test";
import { checkImports } from "./import-rules.ts";

test("a file that decides may not import I/O", () => {
  assert.equal(checkImports("packages/volantd/src/plan/x.ts", 'import { readFile } from "node:fs";\n').length, 1);
  assert.equal(
    checkImports("packages/volantd/src/model/x.ts", 'import { Netlink } from "@volant/netlink";\n').length,
    1,
  );
  assert.equal(checkImports("packages/volantd/src/plan/x.ts", 'const x = await import("node:crypto");\n').length, 1);
  assert.deepEqual(checkImports("packages/volantd/src/plan/x.ts", 'import { y } from "../model/y.ts";\n'), []);
});

test("nobody imports volantd, by name or by path", () => {
  assert.ok(checkImports("packages/volar/src/x.ts", 'import { x } from "@volant/volantd";\n').length > 0);
  assert.ok(checkImports("packages/host/src/x.ts", 'import { x } from "../../volantd/src/config.ts";\n').length > 0);
});

test("the API sees use cases and no store, not over several lines either", () => {
  const source = 'import {\n  a,\n  b,\n} from "../store/sqlite.ts";\n';
  assert.equal(checkImports("packages/volantd/src/api/vms.ts", source).length, 1);
  assert.deepEqual(
    checkImports("packages/volantd/src/api/vms.ts", 'import type { UseCases } from "../engine/use-cases.ts";\n'),
    [],
  );
});

test("a type of a port may be named anywhere inside volantd, but not outside", () => {
  assert.deepEqual(
    checkImports("packages/volantd/src/plan/x.ts", 'import type { Runtime } from "../runtime/qemu/qemu.ts";\n'),
    [],
  );
  assert.equal(checkImports("packages/sdk/src/x.ts", 'import type { X } from "@volant/host";\n').length, 1);
});
