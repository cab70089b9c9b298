/**
 * One session with a guest's agent on the control port: the greeting, its questions, its status, and that it lives. Wire format: docs/agent-protocol.md. GuestLink begins the next one.
 */
import type { Socket } from "node:net";
import { VolantError } from "@volant/contract";
import { connectReading } from "../connect-reading.ts";
import {
  type AgentInfo,
  beatLine,
  encodeHello,
  type GuestIdentity,
  MAX_LINE_TO_HOST_BYTES,
  parseAgentLine,
} from "./control-lines.ts";
import { Handshake } from "./handshake.ts";
import { LineReader } from "./line-reader.ts";
import { Liveness, type LivenessTimes } from "./liveness.ts";
import type { Pulse } from "./pulse.ts";
import { Questions } from "./questions.ts";
import type { JsonObject } from "./untrusted.ts";

/** First pause before a hello without ack is repeated; each further one doubles, to the ceiling. */
const FIRST_REPEAT_MS = 1000;
const LAST_REPEAT_MS = 8000;
/**
 * What one guest may say from one turn of the pulse to the next; the rest waits. A log that is followed needs a fraction of it, and a guest that floods its port with nonsense keeps
 * this process from the others for some 5 % of its time. A line costs more than its bytes.
 */
const BYTES_A_TURN = 512 * 1024;
const BYTES_A_LINE = 256;

export interface SessionOptions {
  readonly controlPath: string;
  readonly identity: GuestIdentity;
  readonly generation: number;
  readonly nonce: string;
  readonly now: () => Date;
  /** How often the agent is to say that it lives. */
  readonly beatMs: number;
  readonly liveness: LivenessTimes;
  readonly pulse: Pulse;
  /** The socket is connected, and the guest has not answered yet. */
  readonly onWaiting: () => void;
  readonly onAttached: (agent: AgentInfo, questions: Questions) => void;
  /** The guest's state, as it came. */
  readonly onStatus: (status: JsonObject) => void;
  /** Nothing was heard since then, on the clock of `performance.now()`; the session goes on. */
  readonly onSilent: (sinceMs: number) => void;
  /** Something is heard again. */
  readonly onAnswer: () => void;
  /** The agent said why it can't serve this host; the session ends. */
  readonly onRefused: (sentence: string) => void;
  /** Once, with why it ended. */
  readonly onEnd: (reason: VolantError) => void;
}

/** Begins when it is made. There is one for each guest at all times, so it waits by callbacks: a promise of each wait would cost as much again as the session. */
export class Session {
  readonly #options: SessionOptions;
  readonly #socket: Socket;
  readonly #lines = new LineReader(MAX_LINE_TO_HOST_BYTES);
  readonly #handshake: Handshake;
  readonly #questions: Questions;
  readonly #beat: string;
  /** From the ack on. */
  #liveness: Liveness | undefined;
  #repeating: NodeJS.Timeout | undefined;
  #stopPulse: () => void;
  #budgetBytes = BYTES_A_TURN;
  #isEnded = false;

  constructor(options: SessionOptions) {
    const { controlPath, nonce, pulse } = options;
    this.#options = options;
    this.#handshake = new Handshake(nonce);
    this.#beat = beatLine(nonce);
    const socket = connectReading(controlPath, (bytes) => this.#receive(bytes));
    this.#socket = socket;
    this.#questions = new Questions(nonce, (line) => void socket.write(line));
    // Stays for the socket's whole life, because a socket that fails without a listener would end the process.
    socket.on("error", (error) => this.#end(error.message, error));
    socket.once("close", () => this.#end("the hypervisor closed the link"));
    socket.once("connect", () => {
      if (this.#isEnded) return;
      options.onWaiting();
      this.#greet(FIRST_REPEAT_MS);
    });
    this.#stopPulse = pulse.every((nowMs) => this.#turn(nowMs));
  }

  /** Ends it from this side. */
  close(): void {
    this.#end("the link was closed");
  }

  /** The first word of its end is why it ended. */
  #end(what: string, cause?: unknown): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#stopPulse();
    clearTimeout(this.#repeating);
    this.#socket.destroy();
    const error = new VolantError("guest_unreachable", what, { cause });
    this.#questions.end(error);
    this.#options.onEnd(error);
  }

  /** Says hello until the agent answers. */
  #greet(pauseMs: number): void {
    const { now } = this.#options;
    // What an unread socket holds is enough; the repetition is for an agent that was restarted or restored meanwhile.
    if (this.#socket.writableLength === 0) this.#socket.write(encodeHello(this.#options, now()));
    this.#repeating = setTimeout(() => this.#greet(Math.min(pauseMs * 2, LAST_REPEAT_MS)), pauseMs);
    this.#repeating.unref();
  }

  /** @returns whether to go on reading */
  #receive(bytes: Buffer): boolean {
    // Most of what comes.
    if (this.#lines.isLine(bytes, this.#beat)) {
      this.#heard();
      this.#budgetBytes -= bytes.length + BYTES_A_LINE;
      return this.#budgetBytes > 0;
    }
    const lines = this.#lines.feed(bytes);
    for (const line of lines) {
      if (this.#isEnded) return true;
      this.#hear(line);
    }
    this.#budgetBytes -= bytes.length + BYTES_A_LINE * lines.length;
    return this.#budgetBytes > 0;
  }

  #hear(line: string): void {
    if (line === this.#beat) return this.#heard();
    const message = parseAgentLine(line);
    if (message === undefined || message.nonce !== this.#options.nonce) return;
    if (!this.#handshake.acknowledged) return this.#welcome(this.#handshake.receive(message, this.#options.now()));
    this.#heard();
    if (message.type === "answer") this.#questions.receive(message);
    else if (message.type === "status") this.#options.onStatus(message.status);
  }

  #welcome(step: ReturnType<Handshake["receive"]>): void {
    if (step.kind === "refused") {
      this.#options.onRefused(step.error.message);
      return this.#end(step.error.message);
    }
    if (step.kind !== "begin") return;
    clearTimeout(this.#repeating);
    if (step.clock !== undefined) this.#socket.write(step.clock);
    this.#liveness = new Liveness(this.#options.liveness, performance.now());
    this.#options.onAttached(step.agent, this.#questions);
  }

  #heard(): void {
    if (this.#liveness?.hear(performance.now()) === true) this.#options.onAnswer();
  }

  #turn(nowMs: number): void {
    if (this.#budgetBytes <= 0) this.#socket.resume();
    this.#budgetBytes = BYTES_A_TURN;
    const news = this.#liveness?.look(nowMs);
    if (news === "silent") this.#options.onSilent(this.#liveness?.heardMs ?? nowMs);
    if (news === "ended") this.#end("the guest's agent does not answer");
  }
}
