/** What holds guests to their addresses. An entry of its own: it loads netlink, which the rest of the package does only where it is used. */
export type { PolicyEntry } from "./policy/entry.ts";
export { type FastPath, openFastPath } from "./policy/fast-path.ts";
export { GuestPolicy } from "./policy/guest-policy.ts";
export { listenForLease } from "./policy/lease-listener.ts";
export type { LeaseChange } from "./policy/lease-watch.ts";
export type { DropCount, ObservedPolicy as ObservedPolicyTable } from "./policy/observe.ts";
export { isGuestTable } from "./policy/ruleset.ts";
export { GUARD_LINK, TapGuard } from "./policy/tap-guard.ts";
