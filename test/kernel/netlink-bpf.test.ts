import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test, { after } from "node:test";
import { assemble, Btf, load, loadClassifier, Netlink, NetlinkError, result } from "@volant/netlink";
import { enterOwnNamespace } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

const BLOCK = 77;
const netlink = await Netlink.open();

after(() => netlink.close());

const classifier = (verdict: number) => ({
  instructions: assemble([...result(verdict)]),
  name: "volant_test",
  license: "Dual BSD/GPL",
});

test("a program has the same tag each time that it is loaded, and another program has another", () => {
  using first = loadClassifier(classifier(0));
  using second = loadClassifier(classifier(0));
  using other = loadClassifier(classifier(1));
  assert.match(first.tag, /^[0-9a-f]{16}$/);
  assert.equal(second.tag, first.tag);
  assert.notEqual(other.tag, first.tag);
});

test("a program that the verifier refuses is told of in the verifier's words", () => {
  const instructions = assemble([load(0, "u32", 5, 0), ...result(0)]);
  assert.throws(
    () => loadClassifier({ ...classifier(0), instructions }),
    (error) => error instanceof NetlinkError && error.code === "EACCES" && /volant_test.*R5/.test(error.message),
  );
});

test("a filter holds its program after whoever loaded it has let go, and is known by the tag", async () => {
  const link = await netlink.links.create({ name: "i0", kind: "ifb" });
  await netlink.traffic.bindIngress(link.index, BLOCK);
  let tag: string;
  {
    using loaded = loadClassifier(classifier(2));
    tag = loaded.tag;
    await netlink.traffic.addFilter(BLOCK, { priority: 4, loaded });
  }
  await netlink.traffic.addFilter(BLOCK, { priority: 5, program: [[0x06, 0, 0, 0]] });
  assert.deepEqual(await netlink.traffic.filters(BLOCK), [
    { priority: 4, program: [], tag },
    { priority: 5, program: [[0x06, 0, 0, 0]] },
  ]);
});

test("this kernel's own types say where a packet's fields are", () => {
  const btf = new Btf(readFileSync("/sys/kernel/btf/vmlinux"));
  assert.equal(btf.field("sk_buff", "ip_summed")?.bits, 2);
  const [start, offset] = [btf.field("sk_buff", "csum_start"), btf.field("sk_buff", "csum_offset")];
  assert.ok(start !== undefined && offset !== undefined);
  assert.deepEqual([offset.bitOffset - start.bitOffset, start.bits, offset.bits], [16, 16, 16]);
  assert.equal(btf.field("sk_buff", "head")?.bits, 64);
  assert.equal(btf.constant("SKB_GSO_TCPV4"), 1);
});
