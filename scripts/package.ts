/**
 * `npm run package`: makes dist/volant-<version>.tgz, which `npm install --global` installs on any Linux host of this architecture: both programs, each with all that it imports in
 * a few files (Node strips no types below node_modules), the guest agent and what confines hypervisors. koffi stays a dependency, since its binary is its own package.
 */
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { VOLANT_VERSION } from "@volant/contract/defaults";
import { layOut, root } from "./lay-out.ts";

const [outside] = process.argv.slice(2);
const dist = outside ?? join(root, "dist");
const staging = join(dist, "package");
await layOut(staging);
execFileSync("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", dist], {
  cwd: staging,
  stdio: "pipe",
});
rmSync(staging, { recursive: true });
process.stdout.write(`${join(dist, `volant-${VOLANT_VERSION}.tgz`)}\n`);
