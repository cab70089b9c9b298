/** The modules of volantd that a volantd which can be killed loads, from `packages/volantd/src` on and without their suffix. */

/** It begins as soon as it is loaded. */
export const MAIN = "main";

/** Besides what those import: what is loaded only when it is needed, and would be loaded too late. */
export const KILLABLE_MODULES: readonly string[] = ["compose", "network/bridge-manager", "network/policy-keeper", MAIN];
