/** Programs of eBPF in the kernel: loaded by bpf(2), and known again by their tag. */
import { errnoError } from "./errors.ts";
import { libc } from "./transport/libc.ts";

/** include/uapi/linux/bpf.h: commands, and the type of a program that classifies packets for traffic control. */
const PROGRAM_LOAD = 5;
const INFO_BY_DESCRIPTOR = 15;
const CLASSIFIER = 3;
/** Of union bpf_attr, what these commands take; and of struct bpf_prog_info, its type, id and tag. */
const LOAD_BYTES = 72;
const INFO_REQUEST_BYTES = 16;
const INFO_BYTES = 16;
const NAME_BYTES = 16;
const LOG_BYTES = 64 * 1024;
const INSTRUCTION_BYTES = 8;
const EAGAIN = 11;
/** The verifier gives up with EAGAIN when a signal comes, which passes. */
const MOST_ATTEMPTS = 20;

export interface BpfClassifier {
  /** As `assemble` gives it. */
  readonly instructions: Buffer;
  /** Up to 15 letters, digits and underscores. */
  readonly name: string;
  /** What the kernel is told of the program's licence; some helpers take one that goes with the GPL. */
  readonly license: string;
}

/** A program that the kernel holds as long as this, or a filter, does. */
export interface LoadedProgram extends Disposable {
  readonly fd: number;
  readonly name: string;
  /** The kernel's digest of the instructions, 16 hexadecimal digits: the same for the same program under the same kernel. */
  readonly tag: string;
}

/**
 * Loads a program that traffic control may run for packets. Needs CAP_BPF and CAP_NET_ADMIN, and CAP_PERFMON where it reads the kernel's memory.
 *
 * @throws NetlinkError with the last line of what the verifier said, where it refuses
 */
export function loadClassifier({ instructions, name, license }: BpfClassifier): LoadedProgram {
  const c = libc();
  const operation = "load program";
  const text = (value: string) => Buffer.from(`${value}\0`, "latin1");
  const log = Buffer.alloc(LOG_BYTES);
  const loadOnce = (level: 0 | 1): number => {
    const request = Buffer.alloc(LOAD_BYTES);
    request.writeUInt32LE(CLASSIFIER, 0);
    request.writeUInt32LE(instructions.length / INSTRUCTION_BYTES, 4);
    request.writeUInt32LE(level, 24);
    request.writeUInt32LE(level === 0 ? 0 : log.length, 28);
    text(name.slice(0, NAME_BYTES - 1)).copy(request, 48);
    const pointers = [[8, instructions] as const, [16, text(license)] as const];
    return c.bpf(PROGRAM_LOAD, request, level === 0 ? pointers : [...pointers, [32, log]]);
  };
  const attempt = (level: 0 | 1): number => {
    let fd = -EAGAIN;
    for (let count = 0; count < MOST_ATTEMPTS && fd === -EAGAIN; count += 1) fd = loadOnce(level);
    return fd;
  };
  const fd = attempt(0);
  if (fd < 0) {
    // Only a refusal is worth the log, which slows the verifier down.
    const again = attempt(1);
    if (again >= 0) c.close(again);
    throw errnoError(-fd, operation, name, lastLine(log));
  }
  const info = Buffer.alloc(INFO_BYTES);
  const request = Buffer.alloc(INFO_REQUEST_BYTES);
  request.writeInt32LE(fd, 0);
  request.writeUInt32LE(info.length, 4);
  const answered = c.bpf(INFO_BY_DESCRIPTOR, request, [[8, info]]);
  if (answered < 0) {
    c.close(fd);
    throw errnoError(-answered, operation, name);
  }
  return { fd, name, tag: info.toString("hex", 8, 16), [Symbol.dispose]: () => void c.close(fd) };
}

/** What the verifier ends with is a count; the line before it says why. */
function lastLine(log: Buffer): string | undefined {
  const end = log.indexOf(0);
  const lines = log.toString("utf8", 0, end === -1 ? log.length : end).split("\n");
  return lines.findLast((line) => line !== "" && !line.startsWith("processed "));
}
