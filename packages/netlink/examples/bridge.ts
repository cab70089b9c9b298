/** Makes a bridge with an address and a tap in it, watches, reads back, and takes everything away. Run it as root. */
import { closeTap, Netlink, NetlinkError, openTap } from "@volant/netlink";

await using nl = await Netlink.open();

const changes = nl.subscribe(["link"]);
const bridge = await nl.links.create({ name: "demo0", kind: "bridge", mac: "02:00:00:00:00:01", up: true });
await nl.addresses.add({ link: bridge.index, address: "192.168.200.1", prefixLength: 24, broadcast: "auto" });
await nl.taps.create({ name: "demo-tap", owner: 1000, attach: { master: bridge.index, alias: "the first guest" } });
await nl.neighbours.set({ link: bridge.index, address: "192.168.200.2", mac: "02:00:00:00:00:02" });

for await (const event of changes) {
  if (event.type === "link" && event.link.name === "demo-tap") {
    console.log(`${event.link.name} is there`);
    break;
  }
}

const descriptor = await openTap("demo-tap"); // hand it to a hypervisor: spawn(…, { stdio: [0, 1, 2, descriptor] })
const ports = await nl.links.list({ master: bridge.index });
for (const { name, alias, tap, carrier } of ports) console.log({ name, alias, owner: tap?.owner, carrier });
await closeTap(descriptor);

try {
  await nl.links.create({ name: "demo0", kind: "bridge" });
} catch (error) {
  if (!(error instanceof NetlinkError)) throw error;
  console.log(error.code, "–", error.message);
}

await nl.links.deleteMany([bridge, ...ports]);
