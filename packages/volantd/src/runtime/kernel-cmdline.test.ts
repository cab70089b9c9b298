import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import fc from "fast-check";
import { checkUserCmdline } from "./kernel-cmdline.ts";

function problemOf(text: string): string | undefined {
  try {
    checkUserCmdline(text);
    return undefined;
  } catch (error) {
    assert.ok(error instanceof VolantError && error.code === "invalid");
    return error.message;
  }
}

test("harmless words pass, with single spaces between them", () => {
  assert.equal(checkUserCmdline("  loglevel=7   debug module.param=a,b "), "loglevel=7 debug module.param=a,b");
  assert.equal(checkUserCmdline(""), "");
});

test("what Volant sets itself can't be overridden, however it is spelled", () => {
  const reserved =
    "console=tty0 rdinit=/bin/sh init=/bin/sh panic=0 ip=dhcp ip pci=on initrd=x tsc-early-khz=1 tsc_early-khz=1";
  for (const word of [...reserved.split(" "), "volant.plugin=x", "volant.manifest=x", "--"]) {
    assert.match(problemOf(`quiet ${word}`) ?? "", /must not/, word);
  }
});

test("quotes, control characters and other alphabets are refused", () => {
  for (const text of ['a="b c"', '"console=tty0"', "a\nb", "a\tb", "a\0b", "ü", "\u007f"]) {
    assert.notEqual(problemOf(text), undefined, JSON.stringify(text));
  }
});

test("whatever passes holds no word that Volant sets", () => {
  const word = fc.oneof(fc.string(), fc.constantFrom("console=x", "ip=", "volant.a", "quiet", "rdinit=/x", '"'));
  fc.assert(
    fc.property(fc.array(word, { maxLength: 6 }), (words) => {
      const text = words.join(" ");
      if (problemOf(text) !== undefined) return;
      for (const passed of checkUserCmdline(text).split(" ")) {
        assert.doesNotMatch(passed, /^(console|rdinit|init|ip|panic)(=|$)|^volant\.|["\n]/);
      }
    }),
    { numRuns: 1000 },
  );
});
