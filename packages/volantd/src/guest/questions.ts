/** What a host asks of an agent over the control port, until it is answered or the session ends. Wire format: docs/agent-protocol.md. Pure, but for what it is given to send with. */
import { VolantError } from "@volant/contract";
import { type AgentLine, encodeAsk, MAX_LINE_TO_AGENT_BYTES } from "./control-lines.ts";
import type { JsonObject } from "./untrusted.ts";

/** Of the 32 questions that an agent takes at once. */
const MAX_OPEN = 28;

export interface Answer {
  /** HTTP's. */
  readonly status: number;
  readonly body: JsonObject;
}

export interface Question {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** JSON, as text. */
  readonly body?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

/** Whether a question with this body fits into a line. */
export function fitsLine(body: string): boolean {
  return Buffer.byteLength(body) <= MAX_LINE_TO_AGENT_BYTES - 512;
}

/** One session's questions. */
export class Questions {
  readonly #nonce: string;
  readonly #send: (line: string) => void;
  /** By their numbers. Undefined: nobody waits for the answer any more, and the agent still has the question. */
  readonly #open = new Map<number, Waiting | undefined>();
  #last = 0;
  #end: VolantError | undefined;

  /** @param send takes a control line as it is to be sent */
  constructor(nonce: string, send: (line: string) => void) {
    this.#nonce = nonce;
    this.#send = send;
  }

  /** @throws VolantError `exhausted` when too many are open, `guest_unreachable` when the session ends first; the signal's reason */
  ask({ method, path, body, signal }: Question): Promise<Answer> {
    if (this.#end !== undefined) return Promise.reject(this.#end);
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    if (this.#open.size >= MAX_OPEN) {
      return Promise.reject(new VolantError("exhausted", `this guest has ${MAX_OPEN} questions to answer already`));
    }
    this.#last += 1;
    const id = this.#last;
    return new Promise((resolve, reject) => {
      if (signal === undefined) this.#open.set(id, { resolve, reject });
      else {
        const onAbort = (): void => {
          this.#open.set(id, undefined);
          reject(signal.reason);
        };
        const settled = (): void => signal.removeEventListener("abort", onAbort);
        signal.addEventListener("abort", onAbort, { once: true });
        this.#open.set(id, {
          resolve: (answer) => {
            settled();
            resolve(answer);
          },
          reject: (error) => {
            settled();
            reject(error);
          },
        });
      }
      this.#send(encodeAsk(this.#nonce, id, method, path, body));
    });
  }

  /** An answer to none of ours is left alone. */
  receive({ id, status, body }: Extract<AgentLine, { type: "answer" }>): void {
    const waiting = this.#open.get(id);
    this.#open.delete(id);
    waiting?.resolve({ status, body });
  }

  /** The session has ended: nothing will be answered any more. */
  end(error: VolantError): void {
    this.#end ??= error;
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const waiting of open) waiting?.reject(error);
  }
}
