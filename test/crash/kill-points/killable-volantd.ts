/**
 * volantd, which dies where it is told to. It is the real one: what is added here only watches. It loads everything, waits for its first order, and starts then, so
 * that it can stand ready while another is still at work. Orders (./point-line.ts) come by the socket VOLANT_TEST_CONTROL, a line of JSON each; each is answered with
 * the points that were seen before it. Statements of SQL that begin with VOLANT_TEST_OMIT are left out.
 */
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { watchEffects } from "./effects.ts";
import { type Order, PointLine } from "./point-line.ts";

const omitted = process.env["VOLANT_TEST_OMIT"];
const points = new PointLine(join(import.meta.dirname, "../../.."));
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

const source = "../../../packages/volantd/src";
for (const module of ["compose.ts", "network/bridge-manager.ts", "network/policy-keeper.ts"])
  await import(`${source}/${module}`);
process.stdout.write("waits for its order\n");
await ordered.promise;
server.unref();
process.stdin.unref();
// It is started in place of the program that it is given the path of.
process.argv.splice(2);
await import(`${source}/main.ts`);
