/** What `volar doctor` does: asks the host and volantd, and shows what the checks say. */
import { VolantError } from "@volant/contract/errors";
import {
  diagnose,
  type DoctorRequest,
  type Finding,
  type Level,
  LinuxHost,
  observeForDoctor,
  type SeenVolantd,
  worstLevel,
} from "@volant/host";
import type { Vm } from "@volant/contract";
import type { CommandContext } from "../../context.ts";
import { type Result, result } from "../../output.ts";
import { printable } from "../../table.ts";
import { endpointText } from "../../views/vms.ts";
import { type SetupFlags, setupRequest } from "../setup/flags.ts";

export type DoctorFlags = Pick<SetupFlags, "workDir">;

/** A volantd that is there answers within milliseconds; one that hangs must not hang the doctor. */
const ANSWER_MS = 5000;
const PAGE = 500;

/** 0 healthy, 1 warnings, 2 something is broken. */
const EXIT_CODES = { ok: 0, warning: 1, broken: 2 } as const;

const LABELS: Readonly<Record<Level, string>> = { ok: "ok", warning: "warning", broken: "BROKEN", skipped: "skipped" };

export async function runDoctor(context: CommandContext, flags: DoctorFlags): Promise<Result> {
  if (process.platform !== "linux") {
    throw new VolantError("not_supported", `volar doctor looks at Linux hosts, and this is ${process.platform}`, {
      hint: "run it on the host that runs volantd",
    });
  }
  const { env } = context.io;
  const findings = diagnose(
    await observeForDoctor({
      settings: await meantSettings(flags, env),
      volantd: await askVolantd(context),
      hypervisor: env["VOLANT_HYPERVISOR"] || undefined,
      managed: env["VOLANT_NETWORK"]?.trim() !== "noop",
    }),
  );
  return { ...result(findings, findingsText, [], troubledChecks), exitCode: EXIT_CODES[worstLevel(findings)] };
}

/** What a set-up recorded counts; where there is none, what one would be asked for. */
async function meantSettings(flags: DoctorFlags, env: CommandContext["io"]["env"]): Promise<DoctorRequest["settings"]> {
  const asked = setupRequest({ ...flags, serviceFile: "" }, env);
  try {
    return (await new LinuxHost(asked.workDir).readRecord())?.settings ?? asked;
  } catch (error) {
    // The check of the record tells why it can't be read.
    if (error instanceof VolantError) return asked;
    throw error;
  }
}

/** A socket in the file system is this host's. */
function isHere(api: string): boolean {
  if (api.startsWith("unix:")) return true;
  const host = URL.canParse(api) ? new URL(api).hostname : "";
  return host === "localhost" || host === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(host);
}

/** volantd's word, if one of this host answers. */
async function askVolantd({ api, client: open }: CommandContext): Promise<SeenVolantd> {
  if (!isHere(api)) return { answers: false, reason: `${api} is not on this host` };
  const signal = AbortSignal.timeout(ANSWER_MS);
  try {
    const client = await open();
    const { installation, bridge, subnet, network, transport } = await client.system.info({ signal });
    const vms = [];
    for (;;) {
      const page = await client.vms.list({ limit: PAGE, offset: vms.length }, { signal });
      vms.push(...page.vms);
      if (page.vms.length === 0 || vms.length >= page.total) break;
    }
    const vmIds = vms.map(({ id }) => id);
    const leased = vms.flatMap(({ ip_address: address }) => (address === "" ? [] : address));
    const withoutVsock = vms.flatMap(({ name, agent: { transport_reason: reason } }) =>
      reason === undefined ? [] : { name, reason },
    );
    const managed = network !== "noop";
    const said = { installation, bridge, subnet, managed, vmIds, leased, transport, withoutVsock };
    return { answers: true, ...said, deafPorts: vms.flatMap(deafPorts) };
  } catch (error) {
    if (signal.aborted) return { answers: false, reason: `${api} does not answer within ${ANSWER_MS / 1000} s` };
    if (error instanceof VolantError) return { answers: false, reason: error.message };
    throw error;
  }
}

function deafPorts({ name, network }: Vm): NonNullable<Extract<SeenVolantd, { answers: true }>["deafPorts"]> {
  return (network.published ?? [])
    .filter(({ listening }) => !listening)
    .map((port) => ({ vm: name, endpoint: endpointText(port), reason: port.reason }));
}

/** Checks that found something. */
function troubledChecks(findings: readonly Finding[]): string[] {
  return findings.filter(({ level }) => level === "warning" || level === "broken").map(({ check }) => check);
}

/** A line for each finding, and below it the command that puts it right. */
export function findingsText(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.flatMap(({ check, level, sentence, fix }) => [
    `${LABELS[level].padEnd(7)}  ${check.padEnd(width)}  ${printable(sentence)}`,
    ...(fix === undefined ? [] : [`${"".padEnd(9 + width)}  fix: ${printable(fix)}`]),
  ]);
  const count = (level: Level) => findings.filter((finding) => finding.level === level).length;
  const [bad, odd, missed] = [count("broken"), count("warning"), count("skipped")];
  const rest = missed === 0 ? "" : `, ${missed} skipped`;
  const verdict = bad + odd === 0 ? "healthy" : `${bad} broken, ${odd === 1 ? "1 warning" : `${odd} warnings`}`;
  return [...lines, `${verdict}${rest}`, ""].join("\n");
}
