/** What to do about an error: its own hint, or one from its code and from what the command line named. Pure but for the question for live names. */
import { VolantError, type ErrorCode } from "@volant/contract/errors";
import { SeveralFailures } from "./failure.ts";
import { nearestNames } from "./nearest.ts";
import type { Noun } from "./placeholders.ts";

/** A name that stood on the command line. */
export interface GivenName {
  readonly name: string;
  /** What it may be the name of. */
  readonly nouns: readonly Noun[];
}

/** What is known where an error is told. */
export interface Circumstances {
  /** The command as it is written: `volar vms get`. */
  readonly command: string;
  readonly given: readonly GivenName[];
  /** Names that there are; none where they can't be learned. */
  readonly names: (nouns: readonly Noun[]) => Promise<readonly string[]>;
}

const SHOW: Readonly<Record<Noun, string>> = {
  vm: "volar vms get",
  deployment: "volar deployments get",
  plugin: "volar plugins show",
};
const LIST: Readonly<Record<Noun, string>> = {
  vm: "volar vms list",
  deployment: "volar deployments list",
  plugin: "volar plugins list",
};

/** @param subject the name that the error is about, where it is one of the command line */
type Advice = (circumstances: Circumstances, subject: GivenName | undefined) => string;

const showHelp: Advice = ({ command }) => `${command} --help shows what it takes`;

/** Where the error is about an object, the command that shows it; what fails otherwise is on this machine, or in a guest. */
function look(what: string): Advice {
  return (circumstances, subject) => {
    const noun = subject?.nouns[0];
    return subject === undefined || noun === undefined
      ? showHelp(circumstances, subject)
      : `${SHOW[noun]} ${subject.name} shows ${what}`;
  };
}

/** For an error that brings no hint of its own. A wrong one would be worse than one that says little. */
const ADVICE: Readonly<Record<ErrorCode, Advice>> = {
  invalid: showHelp,
  checksum_mismatch: () => "correct the checksum, or get the file again: it is not the one that was meant",
  unauthorized: () => "give the key with --api-key or VOLANT_API_KEY",
  forbidden: () => "it takes root on this host, or a key that allows it where volantd was asked",
  not_found: (circumstances, subject) =>
    subject === undefined
      ? showHelp(circumstances, subject)
      : `${subject.nouns.map((noun) => LIST[noun]).join(" or ")} shows what there is`,
  exists: () => "choose another name, or remove what has this one",
  disabled: () => "volar plugins enable makes it usable again",
  key_reused: () => "leave the key out, or choose another one",
  wrong_state: look("its state"),
  in_use: () => "try again once what has it now has let go of it",
  too_large: () => "send less at once",
  rate_limited: () => "wait a moment, and try again",
  internal: () => "volantd's log tells more: please report it",
  not_supported: () => "leave it out: this version does not do it",
  guest_unreachable: look("how its agent is"),
  exhausted: () => "volar doctor shows what this host lacks; what is not needed can be deleted",
  not_ready: () => "volar doctor shows what this host lacks",
  timeout: look("how far it is; what was asked for goes on"),
};

/** The name that an error is about: one of those that it quotes. */
function subjectOf(error: VolantError, given: readonly GivenName[]): GivenName | undefined {
  return given.find(({ name }) => error.message.includes(`"${name}"`));
}

async function hintFor(error: VolantError, circumstances: Circumstances): Promise<string> {
  const subject = subjectOf(error, circumstances.given);
  if (error.code === "not_found" && subject !== undefined) {
    const names = await circumstances.names(subject.nouns);
    const near = names.includes(subject.name) ? [] : nearestNames(subject.name, names);
    if (near.length > 0) return `did you mean ${near.join(" or ")}?`;
  }
  return ADVICE[error.code](circumstances, subject);
}

/** The same error with a hint, where it is an expected one that has none. */
export async function withNextStep(error: unknown, circumstances: Circumstances): Promise<unknown> {
  if (error instanceof SeveralFailures) {
    return new SeveralFailures(await Promise.all(error.errors.map((one) => withNextStep(one, circumstances))));
  }
  if (!(error instanceof VolantError) || error.hint !== undefined) return error;
  return new VolantError(error.code, error.message, { hint: await hintFor(error, circumstances), cause: error.cause });
}
