import { once } from "node:events";
import { createServer, Socket, type AddressInfo, type Server } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { VolantError } from "@volant/contract/errors";
import type { GuestStreams } from "@volant/sdk/node";
import { Argument, type Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import { renderFailure } from "../../failure.ts";
import type { CliIo } from "../../io.ts";
import { renderItem } from "../../output.ts";
import { portPair } from "../../values.ts";

type PortPair = ReturnType<typeof portPair>;

const HERE = "127.0.0.1";

/** Both ways, each until it has ended; where one side breaks off, the other does too: half an answer must not look like a whole one. */
function join(client: Socket, guest: Duplex): void {
  const breakOff = () => {
    client.resetAndDestroy();
    // Encrypted, it has no reset of its own: its peer misses the closing alert. Neither has volantd's Unix socket, and Node throws when one is asked for.
    const isTcp = guest instanceof Socket && !(guest instanceof TLSSocket) && guest.localAddress !== undefined;
    if (isTcp) guest.resetAndDestroy();
    else guest.destroy();
  };
  for (const side of [client, guest]) {
    side.once("error", breakOff).once("close", () => {
      if (!side.readableEnded || !side.writableFinished) breakOff();
    });
  }
  client.pipe(guest).pipe(client);
}

/** Carries one connection into the guest; a failure is said, and resets it. */
async function carry(
  streams: GuestStreams,
  vm: string,
  port: number,
  socket: Socket,
  { io, output }: CommandContext,
): Promise<void> {
  socket.on("error", () => {});
  try {
    const gone = new AbortController();
    socket.once("close", () => gone.abort());
    const stream = await streams.forward(vm, port, { signal: gone.signal });
    join(socket, stream);
  } catch (error) {
    if (!socket.destroyed) io.stderr.write(await renderFailure(error, output));
    socket.resetAndDestroy();
  }
}

async function listen(server: Server, port: number): Promise<number> {
  try {
    server.listen(port, HERE);
    await once(server, "listening");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === "EADDRINUSE" ? "it is in use" : code === "EACCES" ? "it may not be used" : undefined;
    if (why === undefined) throw error;
    throw new VolantError("in_use", `port ${port} of this machine can't be forwarded: ${why}`, {
      hint: "choose another one; 0 means any that is free",
    });
  }
  return (server.address() as AddressInfo).port;
}

/** Forwards ports of this machine's loopback into a guest, until interrupted. */
export async function forwardToVm(
  context: CommandContext,
  name: string,
  pairs: readonly PortPair[],
): Promise<undefined> {
  const { io, output, quiet } = context;
  // A name that is none should be said now, and not at the first connection.
  await (await context.client()).vms.get(name);
  const streams = await context.streams();
  const servers = pairs.map(({ guestPort }) =>
    // A connection whose one direction has ended goes on in the other.
    createServer({ allowHalfOpen: true }, (socket) => void carry(streams, name, guestPort, socket, context)),
  );
  try {
    for (const [index, { hostPort, guestPort }] of pairs.entries()) {
      const port = await listen(servers[index] as Server, hostPort);
      const told = { host_address: HERE, host_port: port, vm: name, guest_port: guestPort };
      const line = quiet ? `${HERE}:${port}` : `forwarding ${HERE}:${port} to port ${guestPort} of ${name}`;
      io.stdout.write(await renderItem(told, output, () => line));
    }
  } catch (error) {
    for (const server of servers) server.close();
    throw error;
  }
  await Promise.all(servers.map((server) => once(server, "close")));
  return undefined;
}

function gatherPairs(text: string, before: readonly PortPair[] | undefined): PortPair[] {
  return [...(before ?? []), portPair(text)];
}

export function registerForward(vms: Command, io: CliIo): void {
  vms
    .command("forward")
    .description("forward TCP ports of this machine into a guest, until interrupted")
    .argument("<vm>")
    .addArgument(new Argument("<ports...>", "<host port>:<guest port>, such as 8080:80").argParser(gatherPairs))
    .action(action(io, forwardToVm));
}
