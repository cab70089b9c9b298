/** The kernel's table of policies: reads it and changes it through nft. It holds without this process: it is kernel state. */
import { closeSync, fstatSync, readSync, writeSync } from "node:fs";
import { VolantError } from "@volant/contract";
import { changePolicy, givingWay, type NftCommand, removeOthers } from "./compile.ts";
import type { OthersElement } from "./elements.ts";
import { checkInstallation, type PolicyEntry } from "./entry.ts";
import {
  absentPolicy,
  changedPolicy,
  type DropCount,
  type ObservedPolicy,
  readDropped,
  readPolicy,
} from "./observe.ts";
import { rulesetText, TABLE } from "./ruleset.ts";

export interface GuestPolicyOptions {
  /** The installation's id, hexadecimal: only what bears its mark is changed. */
  readonly installation: string;
  /** The absolute path of nft. */
  readonly nft: string;
  /**
   * Whether what another installation says of this tap gives way to what is put: where no link has that name, or a tap of this installation. What is left of an
   * installation that is gone would else keep the name from everybody. Default: never.
   */
  readonly givesWay?: (tap: string) => Promise<boolean>;
}

/** What came of a change. */
export interface PolicyChange {
  /** What the table holds now, unless somebody else has changed it meanwhile. */
  readonly after: ObservedPolicy;
  /** The processes that changed it, one transaction each; none where nothing was to be changed. */
  readonly by: readonly number[];
}

/** nft answers within a second for a thousand taps, unless something holds its lock. */
const TIMEOUT_MS = 60_000;
/** Another writer between our look and our change makes the change fail: look again. */
const ATTEMPTS = 3;

/** The policies of one installation's VMs. Every method may be repeated; no two changes of one object overlap. */
export class GuestPolicy {
  readonly #installation: string;
  readonly #nft: string;
  readonly #givesWay: (tap: string) => Promise<boolean>;
  #tail: Promise<unknown> = Promise.resolve();

  constructor({ installation, nft, givesWay = async () => false }: GuestPolicyOptions) {
    this.#installation = checkInstallation(installation);
    this.#nft = nft;
    this.#givesWay = givesWay;
  }

  /** What the kernel holds now. Throws VolantError `not_ready` when nft can't say. */
  async observe(): Promise<ObservedPolicy> {
    const { status, stdout, stderr } = await runNft(this.#nft, ["-j", "list", "table", "bridge", TABLE]);
    if (status === 0) return readPolicy(this.#installation, itemsOf(stdout));
    // The kernel's ENOENT, in nft's words (LC_ALL=C): there is no such table.
    if (stderr.includes("No such file or directory")) return absentPolicy();
    throw failure("read the guests' policies", stderr);
  }

  /** Dropped frames by VM, in one call that lists nothing else. Empty where there is no table. */
  async dropped(): Promise<ReadonlyMap<number, DropCount>> {
    const { status, stdout, stderr } = await runNft(this.#nft, ["-j", "list", "counters", "table", "bridge", TABLE]);
    if (status === 0) return readDropped(this.#installation, itemsOf(stdout));
    if (stderr.includes("No such file or directory")) return new Map();
    throw failure("read the counters of dropped frames", stderr);
  }

  /**
   * Makes the table hold these entries, whatever it held for their VMs before, in one transaction. Puts the rules in first where they are
   * missing or changed. Call it before the taps come up.
   *
   * @throws VolantError `exists` where another installation holds one of the taps
   */
  async put(entries: readonly PolicyEntry[]): Promise<void> {
    await this.#change(entries, new Set(entries.map(({ vmId }) => vmId)));
  }

  /** Takes out whatever the table holds for these VMs. Their taps, where they still exist, pass nothing afterwards. */
  async remove(vmIds: readonly number[]): Promise<void> {
    await this.#change([], new Set(vmIds));
  }

  /**
   * Both at once, in one transaction: {@link put} these, {@link remove} those. A VM that is in both is put.
   *
   * @param known what the table holds, from where this was read before; it is read where that is absent, or turns out not to be so
   */
  change(put: readonly PolicyEntry[], remove: readonly number[], known?: ObservedPolicy): Promise<PolicyChange> {
    return this.#change(put, new Set([...put.map(({ vmId }) => vmId), ...remove]), known);
  }

  /** Makes the table hold exactly these entries of this installation. Of another's only what gives way is touched. */
  async reconcile(entries: readonly PolicyEntry[]): Promise<void> {
    await this.#change(entries, undefined);
  }

  /**
   * Removes the table with its rules, unless it holds an entry of any installation: for the undoing of a set-up. Taps that
   * bear the prefix are held by nothing afterwards.
   */
  async removeTable(): Promise<void> {
    await this.#exclusive(async () => {
      const { rules, empty } = await this.observe();
      if (rules !== "absent" && empty) await this.#apply(["delete", "table", "bridge", TABLE]);
    });
  }

  #change(
    desired: readonly PolicyEntry[],
    scope: ReadonlySet<number> | undefined,
    known?: ObservedPolicy,
  ): Promise<PolicyChange> {
    return this.#exclusive(async () => {
      const by: number[] = [];
      for (let attempt = 1; ; attempt += 1) {
        const observed = (attempt === 1 ? known : undefined) ?? (await this.observe());
        const rulesNeeded = observed.rules !== "intact" && (desired.length > 0 || observed.rules === "changed");
        if (rulesNeeded) by.push(await this.#apply(["-f", "-"], rulesetText()));
        try {
          const others = givingWay(observed.others, desired);
          await this.#checkFree(others);
          // In one transaction with what is put: the tap is held by one of the two at every moment.
          const commands = [
            ...removeOthers(others),
            ...changePolicy(this.#installation, observed.elements, desired, scope),
          ];
          if (commands.length > 0) by.push(await this.#apply(["-j", "-f", "-"], commandText(commands)));
          return { after: changedPolicy(observed, desired, scope), by };
        } catch (error) {
          if (!(error instanceof VolantError) || attempt >= ATTEMPTS) throw error;
        }
      }
    });
  }

  async #checkFree(others: readonly OthersElement[]): Promise<void> {
    const holders = new Map(
      others.flatMap(({ installation, element }) => ("tap" in element ? [[element.tap, installation]] : [])),
    );
    for (const [tap, holder] of holders) {
      if (await this.#givesWay(tap)) continue;
      throw new VolantError("exists", `the rules hold the tap ${tap} for another Volant installation (${holder})`, {
        hint: `if that is gone: ip link delete dev ${tap}`,
      });
    }
  }

  #exclusive<Result>(task: () => Promise<Result>): Promise<Result> {
    const run = this.#tail.then(task);
    this.#tail = run.catch(() => undefined);
    return run;
  }

  /** The pid of the process that changed it. */
  async #apply(args: readonly string[], input?: string): Promise<number> {
    const { status, stderr, pid } = await runNft(this.#nft, args, input);
    if (status !== 0) throw failure("change the guests' policies", stderr);
    return pid;
  }
}

function commandText(commands: readonly NftCommand[]): string {
  return JSON.stringify({ nftables: commands });
}

function itemsOf(stdout: string): readonly unknown[] {
  return (JSON.parse(stdout) as { readonly nftables: readonly unknown[] }).nftables;
}

function failure(what: string, stderr: string): VolantError {
  const reason = stderr.trim().split("\n")[0] ?? "";
  return new VolantError("not_ready", `can't ${what}: nft says ${reason === "" ? "nothing" : `"${reason}"`}`, {
    hint: `nft list table bridge ${TABLE}`,
  });
}

interface NftResult {
  readonly pid: number;
  /** Undefined when it was ended by a signal. */
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs nft with `input` on its standard input. Its messages are in English: they are read. Input and output are memory without a name: nft opens /dev/stdin
 * anew, which fails (ENXIO) on the socket pairs that Node gives its children; and nothing is left behind whenever we die.
 */
async function runNft(path: string, args: readonly string[], input = ""): Promise<NftResult> {
  // Loaded when it is used: never off Linux.
  const { childEnd, createMemoryFile, startChild } = await import("@volant/netlink");
  const files: number[] = [];
  const memory = (name: string): number => {
    const fd = createMemoryFile(`volant-nft-${name}`, 0);
    files.push(fd);
    return fd;
  };
  try {
    const [stdin, stdout, stderr] = [memory("in"), memory("out"), memory("err")];
    // At given positions, so that the descriptor's own stays at the start: for some inputs nft reads it as it is.
    const bytes = Buffer.from(input);
    for (let at = 0; at < bytes.length;) at += writeSync(stdin, bytes, at, bytes.length - at, at);
    const env = { ...environment(), LC_ALL: "C" };
    const pid = await startChild({ path, args: [path, ...args], env, files: [stdin, stdout, stderr] }).catch(
      (cause: NodeJS.ErrnoException) => {
        // EAGAIN: the process table, or the share of it that we have, is full (fork(2)).
        const why = cause.code === "EAGAIN" ? "this host can't have another process" : (cause.code ?? cause.message);
        const hint = cause.code === "EAGAIN" ? "end processes, or raise kernel.pid_max" : "apt-get install nftables";
        throw new VolantError("not_ready", `can't run ${path}: ${why}`, { hint, cause });
      },
    );
    // It is a child of ours that has not been collected: the pid is its own until then.
    const timer = setTimeout(() => process.kill(pid, "SIGKILL"), TIMEOUT_MS);
    try {
      const { exitCode } = await childEnd(pid);
      return { pid, status: exitCode, stdout: textOf(stdout), stderr: textOf(stderr) };
    } finally {
      clearTimeout(timer);
    }
  } finally {
    for (const fd of files) closeSync(fd);
  }
}

function environment(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

function textOf(fd: number): string {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  let at = 0;
  for (let read = -1; at < bytes.length && read !== 0; at += read)
    read = readSync(fd, bytes, at, bytes.length - at, at);
  return bytes.toString("utf8", 0, at);
}
