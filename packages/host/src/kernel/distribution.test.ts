import assert from "node:assert/strict";
import test from "node:test";
import { kernelFlavour, parseMetaPackage, parseOsRelease, parseVersion } from "./distribution.ts";

test("Debian's cloud kernel is found behind its meta package, with its version", () => {
  const debian = parseOsRelease('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n');
  assert.equal(kernelFlavour(debian)?.metaPackage, "linux-image-cloud-amd64");
  const text =
    "Package: linux-image-cloud-amd64\nVersion: 6.1.1-2\nDepends: linux-image-6.1.0-5-cloud-amd64 (= 6.1.1-2)\n";
  assert.deepEqual(parseMetaPackage(text), { image: "linux-image-6.1.0-5-cloud-amd64", version: "6.1.1-2" });
});

test("Ubuntu's kernel has its modules in a package of their own", () => {
  const ubuntu = kernelFlavour(parseOsRelease("ID=ubuntu\nID_LIKE=debian\n"));
  assert.equal(ubuntu?.metaPackage, "linux-image-virtual");
  assert.equal(ubuntu?.modulesPackage?.("linux-image-6.8.0-31-generic"), "linux-modules-6.8.0-31-generic");
  assert.deepEqual(parseMetaPackage("Depends: linux-image-6.8.0-31-generic\n"), {
    image: "linux-image-6.8.0-31-generic",
  });
  assert.equal(parseVersion("Package: x\nVersion: 6.8.0-31.31\n"), "6.8.0-31.31");
});

test("on another distribution no kernel is guessed", () => {
  assert.equal(kernelFlavour(parseOsRelease("ID=fedora\n")), undefined);
  assert.equal(kernelFlavour(parseOsRelease("")), undefined);
});

test("a dependency that could be read as an option is not taken", () => {
  assert.equal(parseMetaPackage("Depends: -oAPT::Update=1, libc6 (>= 2)\n"), undefined);
});
