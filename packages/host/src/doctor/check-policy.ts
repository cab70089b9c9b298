/** Whether guests are held to their addresses. No I/O. */
import { TABLE } from "../policy/ruleset.ts";
import { broken, ok, skipped, type Verdict, warning } from "./finding.ts";
import type { DoctorView } from "./view.ts";

/** The alias of a VM's tap. */
const TAP_ALIAS = /^volant:[0-9a-f]+:[1-9]\d{0,15}$/;

export function checkGuestPolicy({ policy, network, root }: DoctorView): Verdict[] {
  if (!policy.nft) {
    const sentence = "there is no nft: guests can't be held to their addresses, and those that should be don't start";
    return [broken(sentence, "apt-get install nftables")];
  }
  if (policy.table === undefined || network === undefined) {
    return [
      skipped(
        root ? "the rules that hold guests are not looked at here" : "only root can see the rules that hold guests",
      ),
    ];
  }
  const { rules, empty } = policy.table;
  const taps = network.links.filter(({ alias }) => TAP_ALIAS.test(alias ?? "")).length;
  if (taps > 0 && rules !== "intact") {
    const what = rules === "absent" ? "are missing" : "were changed";
    const sentence = `the rules that hold guests to their addresses ${what}, and ${taps} of their taps are there: volantd puts them back`;
    return [broken(sentence, "systemctl restart volantd")];
  }
  if (taps === 0 && !empty) {
    const sentence = "the rules hold guests of which no tap is left";
    return [warning(sentence, `nft delete table bridge ${TABLE}`)];
  }
  const sentence = taps === 0 ? "no guest's tap is there to be held" : "guests are held to their addresses";
  return [ok(policy.slow === undefined ? sentence : `${sentence}; ${policy.slow}`)];
}
