/** Incremental parser of server-sent events (HTML Standard, section 9.2.6): text in, events out. Pure. */
export interface ServerSentEvent {
  /** Id of the last event that had one; what a reader sends back as Last-Event-ID. */
  readonly id: string | undefined;
  readonly type: string;
  readonly data: string;
}

/** Longer than any event of the API; a server that sends a longer one is not to be trusted with our memory. */
const MAX_EVENT_LENGTH = 4 * 1024 * 1024;

export class SseParser {
  #rest = "";
  #length = 0;
  #id: string | undefined;
  #type = "";
  #data: string[] = [];

  #lastId: string | undefined;

  /** The last id of a whole frame, also of one without data, which moves it and is no event. */
  get lastId(): string | undefined {
    return this.#lastId;
  }

  /**
   * Takes the next piece of text, cut anywhere.
   *
   * @returns the events that it completes
   * @throws RangeError when an event grows beyond 4 MiB
   */
  push(text: string): ServerSentEvent[] {
    // A carriage return at the end may be half of a line break: it waits for the next piece.
    const whole = this.#rest + text;
    const lines = whole.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    const events: ServerSentEvent[] = [];
    for (const line of lines) {
      this.#length += line.length;
      if (line !== "") this.#field(line);
      else events.push(...this.#dispatch());
    }
    if (this.#length + this.#rest.length > MAX_EVENT_LENGTH) {
      throw new RangeError("a server-sent event is larger than 4 MiB");
    }
    return events;
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
  }

  #dispatch(): ServerSentEvent[] {
    const data = this.#data;
    const type = this.#type === "" ? "message" : this.#type;
    this.#data = [];
    this.#type = "";
    this.#length = 0;
    this.#lastId = this.#id;
    return data.length === 0 ? [] : [{ id: this.#id, type, data: data.join("\n") }];
  }
}
