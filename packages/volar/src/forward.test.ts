/** `volar vms forward` as a user runs it: a child process against a real API over loopback, whose guest's ports are this machine's. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";

const LIMIT_MS = 60_000;
let running: RunningApi;

before(async () => {
  running = await runApi();
  await running.useCases.vms.create({ name: "web" });
});
after(() => running.api.close());

test("a direction that ends leaves the other one, and what breaks in the guest is a reset for the client, and no end", async (t) => {
  const guests: Socket[] = [];
  const guest = createServer({ allowHalfOpen: true }, (socket) => void guests.push(socket.on("error", () => {})));
  guest.listen(0, "127.0.0.1");
  await once(guest, "listening");
  const { port } = guest.address() as AddressInfo;
  const forward = ["vms", "forward", "web", `0:${port}`];
  const child = spawn(process.execPath, [join(import.meta.dirname, "main.ts"), ...forward], {
    env: { PATH: process.env["PATH"], VOLANT_API_BASE: running.address },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "close");
  t.after(async () => {
    child.kill("SIGKILL");
    guest.close();
    await ended;
  });
  const signal = AbortSignal.timeout(LIMIT_MS);
  const [said] = (await once(child.stdout, "data", { signal })) as [Buffer];
  const here = Number(/127\.0\.0\.1:(\d+) to port/.exec(String(said))?.[1]);
  const open = async (): Promise<readonly [client: Socket, inGuest: Socket]> => {
    const accepted = once(guest, "connection", { signal });
    const client = connect({ port: here, host: "127.0.0.1", allowHalfOpen: true });
    client.write("half");
    await accepted;
    const inGuest = guests.pop() as Socket;
    await once(inGuest, "data", { signal });
    return [client, inGuest];
  };

  const [client, inGuest] = await open();
  client.end();
  await once(inGuest.resume(), "end", { signal });
  inGuest.end("the whole answer");
  assert.equal(await text(client), "the whole answer");

  for (const breaks of ["guest", "client"] as const) {
    const [near, far] = await open();
    far.write("half an answer");
    await once(near, "data", { signal });
    const [broken, other] = breaks === "guest" ? [far, near] : [near, far];
    const told = once(other.resume(), "error", { signal });
    broken.resetAndDestroy();
    assert.equal(((await told) as NodeJS.ErrnoException[])[0]?.code, "ECONNRESET", breaks);
  }
});
