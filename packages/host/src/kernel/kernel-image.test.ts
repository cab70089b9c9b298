import assert from "node:assert/strict";
import test from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { bzImageRelease, extractElf, isPvhKernel } from "./bzimage.ts";
import { loadOrder, moduleName, readModuleInfo } from "./module.ts";

/** The smallest ELF file that a hypervisor takes for a PVH kernel: one header, one note. */
function pvhElf(): Buffer {
  const elf = Buffer.alloc(64 + 56 + 20);
  elf.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  elf.writeUInt16LE(62, 18);
  elf.writeBigUInt64LE(64n, 32);
  elf.writeUInt16LE(56, 54);
  elf.writeUInt16LE(1, 56);
  elf.writeUInt32LE(4, 64);
  elf.writeBigUInt64LE(120n, 64 + 8);
  elf.writeBigUInt64LE(20n, 64 + 32);
  elf.writeUInt32LE(4, 120);
  elf.writeUInt32LE(4, 124);
  elf.writeUInt32LE(18, 128);
  elf.write("Xen\0", 132, "latin1");
  return elf;
}

function bzImage(payload: Uint8Array, release = "6.1.0-test"): Buffer {
  const image = Buffer.alloc(1024 + payload.length);
  image[0x1f1] = 1;
  image.write("HdrS", 0x202, "latin1");
  image.writeUInt16LE(0x020f, 0x206);
  image.writeUInt16LE(0x300 - 0x200, 0x20e);
  image.writeUInt32LE(0, 0x248);
  image.writeUInt32LE(payload.length, 0x24c);
  image.write(`${release} (builder@host) #1\0`, 0x300, "latin1");
  image.set(payload, 1024);
  return image;
}

function sized(packed: Uint8Array, size: number): Buffer {
  const tail = Buffer.alloc(4);
  tail.writeUInt32LE(size);
  return Buffer.concat([packed, tail]);
}

test("an ELF kernel comes out of a bzImage, packed with gzip, Zstandard or LZ4", () => {
  const elf = pvhElf();
  const literals = Buffer.concat([Buffer.from([0xf0, elf.length - 15]), elf]);
  const lz4 = Buffer.concat([Buffer.from([0x02, 0x21, 0x4c, 0x18, literals.length, 0, 0, 0]), literals]);
  for (const payload of [gzipSync(elf), sized(zstdCompressSync(elf), elf.length), sized(lz4, elf.length)]) {
    const extracted = extractElf(bzImage(payload));
    assert.ok(extracted.ok, extracted.ok ? "" : extracted.reason);
    assert.deepEqual(Buffer.from(extracted.elf), elf);
  }
});

test("a bzImage names its release", () => {
  assert.equal(bzImageRelease(bzImage(Buffer.alloc(8))), "6.1.0-test");
  assert.equal(bzImageRelease(Buffer.alloc(2000)), undefined);
});

test("an ELF file without the PVH note is not taken", () => {
  const elf = pvhElf();
  elf.writeUInt32LE(17, 128);
  assert.equal(isPvhKernel(elf), false);
  const extracted = extractElf(bzImage(gzipSync(elf)));
  assert.deepEqual(extracted, { ok: false, reason: "it was built without CONFIG_PVH" });
});

test("hostile images end in a reason, never in an exception", () => {
  const valid = bzImage(gzipSync(pvhElf()));
  const mutated = fc.array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 2000 }), mutated), (input) => {
      let bytes: Uint8Array;
      if (input instanceof Uint8Array) {
        bytes = input;
      } else {
        bytes = Buffer.from(valid);
        for (const [position, value] of input) bytes[position] = value;
      }
      extractElf(bytes);
      isPvhKernel(bytes);
      readModuleInfo(bytes);
    }),
    { numRuns: 1000 },
  );
  fc.assert(
    fc.property(fc.nat(139), fc.nat(255), (position, value) => {
      const elf = pvhElf();
      elf[position] = value;
      isPvhKernel(elf);
      readModuleInfo(elf);
    }),
    { numRuns: 1000 },
  );
});

test("each module comes after all that it depends on, and built-in ones are left out", () => {
  const modules = new Map(
    Object.entries({
      virtio: ["virtio_ring"],
      virtio_ring: [],
      virtio_net: ["virtio", "net-failover", "built_in"],
      net_failover: ["failover"],
      failover: [],
      unrelated: [],
    }).map(([name, depends]) => [name, { depends }]),
  );
  const order = loadOrder(["virtio-net", "virtio", "missing"], modules);
  assert.deepEqual(order, ["virtio_ring", "virtio", "failover", "net_failover", "virtio_net"]);
});

test("load order holds for every acyclic graph", () => {
  const graph = fc.array(fc.array(fc.nat(19), { maxLength: 5 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(graph, (edges) => {
      // An edge only to smaller numbers: no cycle.
      const modules = new Map(
        edges.map((targets, index) => [
          `m${index}`,
          { depends: targets.filter((target) => target < index).map((target) => `m${target}`) },
        ]),
      );
      const order = loadOrder([...modules.keys()].reverse(), modules);
      assert.deepEqual(order.toSorted(), [...modules.keys()].toSorted());
      for (const [name, { depends }] of modules) {
        for (const dependency of depends) assert.ok(order.indexOf(dependency) < order.indexOf(name));
      }
    }),
  );
});

test("a module's name has the kernel's form", () => {
  assert.equal(moduleName("virtio-rng"), "virtio_rng");
});
