/** Listening on ports of this host. */
import { once } from "node:events";
import { createServer, isIPv6, type Socket } from "node:net";
import { VolantError } from "@volant/contract";
import { endpointText } from "../model/published-port.ts";

export interface PortListener {
  /** Lets the port go, and ends the connections that came by it. The port is free when this returns. */
  close(): void;
}

/** A peer that has vanished without a word is noticed after about this time (tcp(7), TCP_KEEPIDLE). */
const KEEPALIVE_MS = 60_000;

/** What the kernel says (bind(2)), in words. Undefined for what is no expected failure. */
function bindFailure(error: unknown, endpoint: string, address: string): VolantError | undefined {
  switch ((error as NodeJS.ErrnoException).code) {
    case "EADDRINUSE":
      return new VolantError("in_use", `port ${endpoint} of this host is in use by another program`, {
        hint: "choose another port of the host, or leave it out for one that is free",
        cause: error,
      });
    case "EACCES":
      return new VolantError("not_ready", `volantd may not listen on port ${endpoint} of this host`, {
        hint: "ports below 1024 need root, or the capability CAP_NET_BIND_SERVICE",
        cause: error,
      });
    case "EADDRNOTAVAIL":
    case "EAFNOSUPPORT":
    case "EINVAL":
      return new VolantError(
        "invalid",
        `port ${endpoint} can't be listened on: ${address} is no address of this host`,
        {
          hint: "127.0.0.1 is for programs of this host, 0.0.0.0 for everyone who reaches it",
          cause: error,
        },
      );
    default:
      return undefined;
  }
}

/**
 * Listens. IPv6 addresses are listened on for IPv6 alone, whatever net.ipv6.bindv6only says.
 *
 * @param onConnection gets each connection unread, with each direction to be ended by itself
 * @throws VolantError `in_use`, `not_ready` (not allowed), `invalid` (no address of this host)
 */
export async function listenOn(
  { address, hostPort }: { readonly address: string; readonly hostPort: number },
  onConnection: (socket: Socket) => void,
): Promise<PortListener> {
  const sockets = new Set<Socket>();
  const server = createServer(
    { allowHalfOpen: true, pauseOnConnect: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEPALIVE_MS },
    (socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      // Whatever fails closes the socket, and that is seen.
      socket.on("error", () => {});
      onConnection(socket);
    },
  );
  server.listen({ host: address, port: hostPort, ipv6Only: isIPv6(address) });
  try {
    await once(server, "listening");
  } catch (error) {
    throw bindFailure(error, endpointText({ address, hostPort }), address) ?? error;
  }
  // accept(2) fails for a connection that is gone already, or without descriptors: the next one may do better.
  server.on("error", () => {});
  return {
    close: () => {
      server.close();
      for (const socket of sockets) socket.resetAndDestroy();
    },
  };
}
