import assert from "node:assert/strict";
import test from "node:test";
import { NoopManager, parseLinkNames } from "./noop-manager.ts";

const links = (...names: string[]) => new NoopManager(async () => new Set(names));

test("the name of a tap made by hand is the VM's, case kept", () => {
  assert.deepEqual([...links().tapNames("Web-1")], ["volar-tap-Web1"]);
});

test("a tap that is there is taken; one that is not is named, with the command that makes it", async () => {
  await links("lo", "volar-tap-Web1").checkReady("volar-tap-Web1");
  await assert.rejects(links("lo").checkReady("volar-tap-Web1"), {
    code: "not_ready",
    message: /no tap volar-tap-Web1/,
    hint: /^make it \(ip tuntap add dev volar-tap-Web1 mode tap\).*network\.tap/,
  });
});

test("a name that no link can have is named, with the way out", async () => {
  await assert.rejects(links("volar-tap-frontend").checkReady("volar-tap-frontend"), {
    code: "invalid",
    message: /volar-tap-frontend is longer than the 15 bytes/,
    hint: /network\.tap/,
  });
});

test("where the host does not tell its links, the tap is taken to be there", async () => {
  await new NoopManager(async () => undefined).checkReady("volar-tap-a");
});

test("the kernel's table of links is read by name, whatever stands in the name", () => {
  const table = [
    "Inter-|   Receive                |  Transmit",
    " face |bytes    packets errs drop|bytes    packets errs drop",
    "    lo:       0       0    0    0        0       0    0    0",
    "volar-tap-Web1:  12   1    0    0        0       0    0    0",
    "  a.b@c:      0       0    0    0        0       0    0    0",
    "",
  ].join("\n");
  assert.deepEqual([...parseLinkNames(table)], ["lo", "volar-tap-Web1", "a.b@c"]);
});
