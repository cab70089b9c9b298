import type { RestartPolicy } from "@volant/contract";

/** What `--restart` of `vms create` and `vms config set` takes. */
export const RESTART_POLICIES: readonly RestartPolicy[] = ["no", "on-failure", "always"];
export const RESTART_HELP =
  "start it again when it ends: after a crash, or after a power-off of its own, too (default: the plugin's, else no)";
