/** What runs in the page: the SDK's browser entry, as a page uses it. What a scene gives crosses into the test as JSON. */
import {
  VolantClient,
  VolantError,
  type ExecExit,
  type ExecStart,
  type TransportOptions,
  type VmConsole,
  type VmProcess,
} from "@volant/sdk";

let volant: VolantClient;

/** An error as a page can show it. */
export interface Refusal {
  readonly isVolantError: boolean;
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

function refusalOf(error: unknown): Refusal {
  if (!(error instanceof VolantError)) return { isVolantError: false, code: "", message: String(error), hint: "" };
  return { isVolantError: true, code: error.code, message: error.message, hint: error.hint ?? "" };
}

async function refused(work: Promise<unknown>): Promise<Refusal> {
  try {
    await work;
  } catch (error) {
    return refusalOf(error);
  }
  throw new Error("it was not refused");
}

async function gather(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for await (const bytes of stream) parts.push(bytes.slice());
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const encode = (words: string) => new TextEncoder().encode(words);

/** Bytes that tell where they belong. */
function pattern(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8)) & 0xff);
}

/** What is under way, by the name that the test gave it. */
const consoles = new Map<string, { readonly console: VmConsole; printed: string; end: string }>();
const shells = new Map<string, { readonly shell: VmProcess; printed: string }>();
const seen: { readonly id: number; readonly name: string; readonly type: string }[] = [];
const lines: string[] = [];
let eventsEnd = "";

export const scenes = {
  connect(options: TransportOptions): void {
    volant = new VolantClient(options);
  },

  /** A VM's life by calls that are typed. */
  async life(name: string) {
    const created = await volant.vms.create({ name });
    const { vms, total } = await volant.vms.list({ q: name });
    await volant.vms.delete(name);
    const after = await volant.vms.list();
    return {
      created: created.name,
      status: created.status,
      listed: vms.map((vm) => vm.name),
      total,
      after: after.total,
    };
  },

  create: async (name: string, plugin?: string) =>
    (await volant.vms.create({ name, ...(plugin === undefined ? {} : { plugin }) })).name,
  remove: (name: string) => volant.vms.delete(name),
  wait: async (name: string) => (await volant.vms.wait(name, { timeoutMs: 120_000 })).status,
  getRefused: (name: string) => refused(volant.vms.get(name)),
  listRefused: () => refused(volant.vms.list()),
  consoleRefused: (name: string) => refused(volant.vms.console(name)),
  execRefused: (name: string) => refused(volant.vms.exec(name, { argv: ["echo"] })),

  /** What a page can do without the SDK, and without being allowed to read the answer. */
  async slip(url: string, body: string): Promise<string> {
    const { type } = await fetch(url, { method: "POST", mode: "no-cors", body });
    return type;
  },
  /** How a WebSocket that is opened by hand ends. */
  socket: (url: string) =>
    new Promise<string>((resolve) => {
      const socket = new WebSocket(url, ["volant.v1"]);
      socket.addEventListener("open", () => resolve("open"));
      socket.addEventListener("close", ({ code }) => resolve(`closed ${code}`));
    }),

  /** Hands a file over, as a Blob and in pieces; gives what volantd says of it. */
  async upload() {
    const bytes = pattern(300_000);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const checksum = `sha256:${Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    const before = await volant.images.has(checksum);
    async function* pieces(): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
    }
    await volant.images.put(checksum, pieces());
    const after = await volant.images.has(checksum);
    const wrong = await refused(volant.images.put(checksum, new Blob(["x"])));
    return { before, after, wrong: wrong.code };
  },

  /** Collects events from an id on, until the page goes. */
  watch(afterId: number): void {
    void (async () => {
      try {
        for await (const { id, name, type } of volant.events({ afterId })) seen.push({ id, name, type });
      } catch (error) {
        eventsEnd = String(error);
      }
    })();
  },
  seen: () => ({ events: [...seen], end: eventsEnd }),

  async openConsole(name: string): Promise<void> {
    const opened = { console: await volant.vms.console(name), printed: "", end: "" };
    consoles.set(name, opened);
    void (async () => {
      try {
        for await (const bytes of opened.console.readable) opened.printed += decode(bytes);
        opened.end = "ended";
      } catch (error) {
        opened.end = refusalOf(error).code;
      }
    })();
  },
  async type(name: string, words: string): Promise<void> {
    const writer = consoles.get(name)?.console.writable.getWriter();
    await writer?.write(encode(words));
    writer?.releaseLock();
  },
  printed: (name: string) => ({ printed: consoles.get(name)?.printed ?? "", end: consoles.get(name)?.end ?? "" }),
  leaveConsole: (name: string) => consoles.get(name)?.console.close(),

  /** Runs a program to its end, with words as its input. */
  async exec(name: string, start: ExecStart, input = ""): Promise<{ stdout: string; stderr: string; exit: ExecExit }> {
    const process = await volant.vms.exec(name, start);
    const writer = process.stdin.getWriter();
    const written = writer.write(encode(input)).then(() => writer.close());
    const [stdout, stderr] = await Promise.all([gather(process.stdout), gather(process.stderr), written]);
    return { stdout: decode(stdout), stderr: decode(stderr), exit: await process.exit };
  },
  programRefused: async (name: string, program: string) => {
    const process = await volant.vms.exec(name, { argv: [program] });
    return refused(process.exit);
  },
  /** Sends many bytes through a program that gives them back. */
  async throughCat(name: string, argv: readonly string[], length: number) {
    const process = await volant.vms.exec(name, { argv });
    const sent = pattern(length);
    const source = new Blob([sent]).stream();
    const [back] = await Promise.all([gather(process.stdout), source.pipeTo(process.stdin)]);
    return { exit: await process.exit, length: back.length, isSame: back.every((byte, index) => byte === sent[index]) };
  },
  /** Starts a program whose output nobody reads. */
  async ignore(name: string, argv: readonly string[]): Promise<void> {
    const shell = await volant.vms.exec(name, { argv });
    shells.set(name, { shell, printed: "" });
  },
  async openShell(name: string): Promise<void> {
    const shell = await volant.vms.exec(name, { argv: ["sh"], tty: { cols: 80, rows: 24 } });
    const opened = { shell, printed: "" };
    shells.set(name, opened);
    void (async () => {
      for await (const bytes of shell.stdout) opened.printed += decode(bytes);
    })();
  },
  async typeInShell(name: string, words: string): Promise<void> {
    const writer = shells.get(name)?.shell.stdin.getWriter();
    await writer?.write(encode(words));
    writer?.releaseLock();
  },
  resizeShell: (name: string, cols: number, rows: number) => shells.get(name)?.shell.resize({ cols, rows }),
  shellPrinted: (name: string) => shells.get(name)?.printed ?? "",
  shellExit: (name: string) => shells.get(name)?.shell.exit,
  leaveShell: (name: string) => shells.get(name)?.shell.close(),

  /** All lines that there are. */
  async logs(name: string): Promise<string[]> {
    const found: string[] = [];
    for await (const { line } of volant.vms.logs(name)) found.push(line);
    return found;
  },
  /** Collects the lines that come, too, until the page goes. */
  follow(name: string): void {
    void (async () => {
      for await (const { line } of volant.vms.logs(name, { follow: true })) lines.push(line);
    })();
  },
  followed: () => [...lines],
};

export type Scenes = typeof scenes;
Object.assign(globalThis, { scenes });
