import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { KeyUseCases } from "../engine/use-cases.ts";

/** Connections by the key that was last used on them: when it is revoked, what goes on on them ends, too. */
export class KeyConnections {
  readonly #byKey = new Map<number, Set<Socket>>();
  /** Answers to whoever revokes a key, by their connection: it may be his own. */
  readonly #answers = new WeakMap<Socket, ServerResponse>();

  constructor(keys: Pick<KeyUseCases, "onRevoked">) {
    keys.onRevoked((id) => this.#close(id));
  }

  /** @param answer one that is still to be given when the key is revoked meanwhile */
  hold(id: number, socket: Socket, answer?: ServerResponse): void {
    if (answer !== undefined) this.#answers.set(socket, answer);
    const held = this.#byKey.get(id) ?? new Set<Socket>();
    this.#byKey.set(id, held);
    if (held.has(socket)) return;
    held.add(socket);
    socket.once("close", () => {
      held.delete(socket);
      if (held.size === 0 && this.#byKey.get(id) === held) this.#byKey.delete(id);
    });
  }

  #close(id: number): void {
    for (const socket of this.#byKey.get(id) ?? []) {
      const answer = this.#answers.get(socket);
      if (answer === undefined || answer.closed) socket.destroy();
      else answer.once("close", () => socket.destroySoon());
    }
  }
}
