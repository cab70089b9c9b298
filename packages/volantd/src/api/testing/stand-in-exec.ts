/** A guest's programs for tests: `echo` prints its arguments, `cat` its input, `fail` ends with 3, `flood` prints until it is ended, `wait` only waits. */
import { duplexPair, type Duplex } from "node:stream";
import { encodeExecFrame, EXEC_FRAME, ExecFrameDecoder } from "@volant/contract";

const json = (value: unknown) => Buffer.from(JSON.stringify(value));

/** The host's end of an exec stream. */
export function createStandInExec(): Duplex {
  const [host, guest] = duplexPair();
  const send = (kind: number, payload: Uint8Array) => guest.writable && guest.write(encodeExecFrame(kind, payload));
  // The stream ends with its last frame, as the agent's does.
  const last = (kind: number, payload: Uint8Array) => {
    send(kind, payload);
    guest.end();
  };
  const exit = (code: number) => last(EXEC_FRAME.exit, json({ code }));
  const decoder = new ExecFrameDecoder();
  let program = "";
  function flood(): void {
    if (guest.destroyed || host.destroyed) return;
    send(EXEC_FRAME.stdout, Buffer.alloc(32 * 1024, "x"));
    setImmediate(flood);
  }
  function start([name = "", ...words]: readonly string[]): void {
    program = name;
    if (name === "echo") send(EXEC_FRAME.stdout, Buffer.from(`${words.join(" ")}\n`));
    if (name === "fail") send(EXEC_FRAME.stderr, Buffer.from("it failed\n"));
    if (name === "flood") flood();
    else if (name === "echo" || name === "fail") exit(name === "echo" ? 0 : 3);
    else if (name !== "cat" && name !== "wait") {
      last(EXEC_FRAME.error, json({ error: `the guest has no program ${JSON.stringify(name)}`, code: "not_found" }));
    }
  }
  guest.on("error", () => {});
  guest.on("data", (bytes: Buffer) => {
    for (const { kind, payload } of decoder.feed(bytes)) {
      if (kind === EXEC_FRAME.start) {
        start((JSON.parse(Buffer.from(payload).toString("utf8")) as { argv: string[] }).argv);
      } else if (kind === EXEC_FRAME.stdin && program === "cat") {
        if (payload.length === 0) exit(0);
        else send(EXEC_FRAME.stdout, payload.slice());
      }
    }
  });
  // Whoever hangs up takes the program along.
  host.on("close", () => guest.destroy());
  return host;
}
