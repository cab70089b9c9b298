/** Checks of the LAN bridges that set-up made or was told of. No I/O. */
import { shellWord } from "../setup/operation.ts";
import { broken, ok, skipped, type Verdict, warning } from "./finding.ts";
import type { DoctorView, SeenNetwork } from "./view.ts";

export function checkLanBridges({ record, network, settings }: DoctorView): Verdict[] {
  const lans = record === undefined || "unreadable" in record ? [] : record.lans;
  if (lans.length === 0) return [ok("no LAN bridge is set up")];
  if (network === undefined) return [skipped("the host's links can't be listed")];
  const again = ["volar", "setup", "--work-dir", settings.workDir].map(shellWord).join(" ");
  return lans.flatMap((lan) => checkLan(lan.bridge, lan.card?.name, network, again));
}

/** @param card its network card, where set-up made it */
function checkLan(
  bridge: string,
  card: string | undefined,
  { links, addresses }: SeenNetwork,
  again: string,
): Verdict[] {
  const link = links.find(({ name }) => name === bridge);
  if (link === undefined) {
    const whose = card === undefined ? ": whoever made it must make it again" : "";
    return [broken(`the LAN bridge ${bridge} is missing${whose}`, ...(card === undefined ? [] : [again]))];
  }
  if (link.kind !== "bridge")
    return [broken(`the link ${bridge} is not a bridge, and guests are to join it as their LAN`)];
  if (!link.up) return [broken(`the LAN bridge ${bridge} is down`, `ip link set dev ${shellWord(bridge)} up`)];
  if (card === undefined) return [ok(`the LAN bridge ${bridge} is up`)];
  const port = links.find(({ name }) => name === card);
  if (port === undefined) return [broken(`the network card ${card} of the LAN bridge ${bridge} is missing`)];
  if (port.master !== link.index) {
    return [broken(`the network card ${card} is not on the LAN bridge ${bridge}: guests there reach nothing`, again)];
  }
  if (!port.up)
    return [broken(`the network card ${card} of ${bridge} is down`, `ip link set dev ${shellWord(card)} up`)];
  const stray = addresses.find((address) => address.link === card);
  if (stray !== undefined) {
    const sentence = `${card} is a port of ${bridge} and has the address ${stray.address}, which belongs on the bridge`;
    return [warning(sentence, again)];
  }
  return [ok(`the LAN bridge ${bridge} is up, with ${card}`)];
}
