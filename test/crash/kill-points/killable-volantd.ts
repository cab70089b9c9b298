/**
 * volantd, which dies where it is told to. It is the real one: what is added here only watches. It loads everything, waits for its first order, and starts then, so
 * that it can stand ready while another is still at work. Orders (./point-line.ts) come by the socket VOLANT_TEST_CONTROL, a line of JSON each; each is answered with
 * the points that were seen before it. Statements of SQL that begin with VOLANT_TEST_OMIT are left out. Its code is the sources, or a bundle of them in the folder
 * VOLANT_TEST_BUNDLE, which is loaded in a third of the time.
 */
import { once } from "node:events";
import { flushCompileCache } from "node:module";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { watchEffects } from "./effects.ts";
import { KILLABLE_MODULES, MAIN } from "./killable-modules.ts";
import { type Order, PointLine } from "./point-line.ts";
import { findInBundle, findInSources } from "./source-place.ts";

const omitted = process.env["VOLANT_TEST_OMIT"];
const bundle = process.env["VOLANT_TEST_BUNDLE"];
const packages = join(import.meta.dirname, "../../../packages");
const points = new PointLine(packages, bundle === undefined ? findInSources(packages) : findInBundle(bundle));
points.watchAwaits();
watchEffects(points, (sql) => omitted !== undefined && sql.startsWith(omitted));

const ordered = Promise.withResolvers<void>();
const server = createServer((socket) => {
  socket.on("error", () => {});
  createInterface({ input: socket }).on("line", (line) => {
    const { seen } = points;
    points.obey(JSON.parse(line) as Order);
    ordered.resolve();
    socket.write(`${JSON.stringify(seen)}\n`);
  });
  // It must not keep a volantd alive that is to end, and must keep one that waits for its order.
  void ordered.promise.then(() => socket.unref());
});
// Whoever started it holds the other end, and is gone when that is: nobody would end it then.
process.stdin.once("end", () => process.exit(1)).resume();
server.listen(process.env["VOLANT_TEST_CONTROL"]);
await once(server, "listening");

const code = bundle ?? join(packages, "volantd/src");
const load = (module: string): Promise<unknown> =>
  import(pathToFileURL(join(code, `${module}.${bundle === undefined ? "ts" : "js"}`)).href);
for (const module of KILLABLE_MODULES) if (module !== MAIN) await load(module);
// Whoever is killed does not keep what was compiled.
flushCompileCache();
process.stdout.write("waits for its order\n");
await ordered.promise;
server.unref();
process.stdin.unref();
// It is started in place of the program that it is given the path of.
process.argv.splice(2);
await load(MAIN);
