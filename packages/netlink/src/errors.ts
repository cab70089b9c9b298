import { getSystemErrorMap } from "node:util";

/** Linux errno numbers that libuv does not know, or names differently (include/uapi/asm-generic/errno.h). */
const LINUX_ERRNO: ReadonlyMap<number, readonly [name: string, words: string]> = new Map([
  [10, ["ECHILD", "no such child process"]],
  [54, ["EXFULL", "the exchange is full"]],
  [61, ["ENODATA", "no data available"]],
  [76, ["ENOTUNIQ", "the name is not unique"]],
  [95, ["EOPNOTSUPP", "the kernel does not support this operation"]],
  [524, ["ENOTSUPP", "the kernel does not support this operation"]],
]);

/** What a person can do about an error that has one usual cause. */
const HINTS: Readonly<Record<string, string>> = {
  EPERM: "this needs CAP_NET_ADMIN in the network namespace: run as root",
  EXFULL: "a Linux bridge takes at most 1023 ports: use a further bridge",
};

/** Codes that are this package's own, beside the names of Linux errno values. */
export type NetlinkErrorCode = "EUNSUPPORTED" | (string & {});

export interface NetlinkErrorDetails {
  /** An errno's name, or `EUNSUPPORTED` where rtnetlink does not exist. */
  readonly code: NetlinkErrorCode;
  /** What was attempted, in words: `create link`. */
  readonly operation: string;
  /** What it was attempted on: a link's name, an address, a route. */
  readonly object?: string | undefined;
  /** The positive errno; 0 when no system call was involved. */
  readonly errno?: number;
  /** What was wrong, in words. The default is errno's own text. */
  readonly reason?: string | undefined;
}

/** The one error of this package: an errno's name, the operation, the object, and a sentence. */
export class NetlinkError extends Error {
  override readonly name = "NetlinkError";
  readonly code: NetlinkErrorCode;
  readonly errno: number;
  readonly operation: string;
  readonly object: string;

  constructor(details: NetlinkErrorDetails) {
    const object = details.object ?? "";
    const subject = object === "" ? details.operation : `${details.operation} ${object}`;
    const reason = details.reason ?? "failed";
    const hint = HINTS[details.code];
    super(`${subject}: ${reason} (${details.code})${hint === undefined ? "" : `; ${hint}`}`);
    this.code = details.code;
    this.errno = details.errno ?? 0;
    this.operation = details.operation;
    this.object = object;
  }
}

/** The name and the text of a positive Linux errno: `["EEXIST", "file already exists"]`. */
export function describeErrno(errno: number): readonly [name: string, words: string] {
  return LINUX_ERRNO.get(errno) ?? getSystemErrorMap().get(-errno) ?? [`E${errno}`, `error number ${errno}`];
}

/**
 * The error for a positive errno. `kernelMessage` is the extended acknowledgement, if the kernel gave one: it says more
 * than errno's text and replaces it.
 */
export function errnoError(errno: number, operation: string, object?: string, kernelMessage?: string): NetlinkError {
  const [code, words] = describeErrno(errno);
  const reason = kernelMessage === undefined || kernelMessage === "" ? words : `${words}: ${kernelMessage}`;
  return new NetlinkError({ code, errno, operation, object, reason });
}

/** The error for an argument that can't be right, found before the kernel was asked. */
export function invalidArgument(operation: string, object: string, reason: string): NetlinkError {
  return new NetlinkError({ code: "EINVAL", errno: 22, operation, object, reason });
}

/** The error of every decoder: bytes that do not follow the protocol. */
export function badMessage(reason: string): NetlinkError {
  return new NetlinkError({ code: "EBADMSG", errno: 74, operation: "decode netlink message", reason });
}
