/** Carries plans out: intent into the record first, then the effect, one after the other. All effects go through the port. */
import { basename } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { VolantError } from "@volant/contract";
import type { ObserveRequest, SetupHost } from "./host-port.ts";
import type { RecordedLan } from "./lan.ts";
import { firewallRequest } from "./plan-firewall.ts";
import { missingParts, planSetup } from "./plan.ts";
import type { Refusal, SetupAction, SetupPlan } from "./plan.ts";
import {
  effectKey,
  emptyRecord,
  findEffect,
  firewallOf,
  isStale,
  judgedForwarding,
  knownForwarding,
  madeLanBridges,
  recordedSettings,
  refreshRecord,
  withEffect,
  withoutEffect,
} from "./record.ts";
import type { SetupRecord } from "./record.ts";
import { checkSettings } from "./settings.ts";
import type { SetupSettings } from "./settings.ts";
import { isLanEffect, undoLan } from "./undo-lan.ts";
import { planUndo } from "./undo.ts";
import type { UndoStep } from "./undo.ts";

/** What came of one part, for the person who watches. */
export interface Progress {
  readonly title: string;
  readonly outcome: "done" | "unchanged" | "undone" | "gone" | "kept";
  readonly reason?: string;
}

export interface SetupOptions {
  readonly onProgress?: (progress: Progress) => void;
}

/** One error for all refusals: the first one's code, every one's sentence. */
export function refusalError(refusals: readonly Refusal[]): VolantError | undefined {
  const first = refusals[0];
  if (first === undefined) return undefined;
  const message = refusals.map((refusal) => refusal.message).join("; ");
  const hints = [...new Set(refusals.flatMap(({ hint }) => (hint === undefined ? [] : [hint])))];
  return new VolantError(first.code, message, hints.length === 0 ? {} : { hint: hints.join("; ") });
}

const NEEDS_ROOT: Refusal = {
  code: "forbidden",
  message: "only root can change the host's network",
  hint: "run it with sudo, or see with --dry-run what it would do",
};

/** Looks at the host and says what set-up would do; changes nothing, and needs no right to. */
export async function previewSetup(host: SetupHost, settings: SetupSettings): Promise<SetupPlan> {
  const record = await readableRecord(host);
  const observed = await host.observe(setupRequest(settings, record));
  return planSetup(settings, observed, record);
}

/** What to look at for a set-up: links of LANs that are recorded, and those that are asked for, which are judged as well. */
function setupRequest(settings: SetupSettings, record: SetupRecord | undefined): ObserveRequest {
  const recorded = record?.lans ?? [];
  const known = new Set(recorded.map(({ bridge }) => bridge));
  const fresh = settings.lans.filter(({ bridge }) => !known.has(bridge));
  const made = [...madeLanBridges(recorded), ...fresh.flatMap(({ bridge, card }) => (card === null ? [] : [bridge]))];
  return {
    firewall: firewallRequest(firewallOf(settings, record), settings, made),
    serviceFile: settings.serviceFile,
    stations: [
      ...made.map((name) => ({ name, judge: false })),
      ...recordedCards(recorded),
      ...fresh.flatMap(({ card }) => (card === null ? [] : [{ name: card, judge: true }])),
    ],
    record,
    sysctls: judgedForwarding(record),
    forwardingKnown: knownForwarding(record) !== undefined,
    everything: false,
  };
}

function recordedCards(lans: readonly RecordedLan[]): ObserveRequest["stations"] {
  return lans.flatMap(({ card }) => (card === null ? [] : [{ name: card.name, judge: false }]));
}

/** What to look at for an undo. */
function undoRequest(record: SetupRecord): ObserveRequest {
  const { settings, lans, effects } = record;
  const request = firewallRequest(settings.firewall, settings, madeLanBridges(lans));
  const rules = effects.flatMap((effect) => (effect.kind === "rule" ? [effect.rule] : []));
  return {
    firewall: request.kind === "iptables" ? { ...request, rules } : request,
    serviceFile: settings.serviceFile,
    stations: [...madeLanBridges(lans).map((name) => ({ name, judge: false })), ...recordedCards(lans)],
    record,
    sysctls: [],
    forwardingKnown: false,
    everything: true,
  };
}

/** The record, or undefined where this user may not read it. */
async function readableRecord(host: SetupHost): Promise<SetupRecord | undefined> {
  try {
    return await host.readRecord();
  } catch (error) {
    if (error instanceof VolantError && error.code === "forbidden") return undefined;
    throw error;
  }
}

/**
 * Sets the host up, and gives the plan that was carried out. When it fails in the middle, the record tells what was done up to
 * there: a second set-up finishes it, an undo takes it back.
 *
 * @throws VolantError with the reason when the plan refuses; then nothing was changed
 */
export async function runSetup(
  host: SetupHost,
  settings: SetupSettings,
  options: SetupOptions = {},
): Promise<SetupPlan> {
  return await host.exclusively(() => setUp(host, settings, options));
}

async function setUp(host: SetupHost, settings: SetupSettings, options: SetupOptions): Promise<SetupPlan> {
  const stored = await host.readRecord();
  const observed = await host.observe(setupRequest(settings, stored));
  const plan = planSetup(settings, observed, stored);
  const refused = refusalError(observed.root ? plan.refusals : [NEEDS_ROOT]);
  if (refused !== undefined) throw refused;

  const base = stored ?? emptyRecord(settings, observed.kernel, await host.missingFolders());
  const upToDate =
    stored?.state === "applied" &&
    !isStale(stored, observed.kernel) &&
    sameSettings(stored, settings) &&
    isDeepStrictEqual(stored.lans, plan.lans);
  if (upToDate && plan.actions.every((action) => !action.needed && !isUnrecorded(action, stored))) {
    for (const { title } of plan.actions) options.onProgress?.({ title, outcome: "unchanged" });
    return plan;
  }
  const fresh = refreshRecord(base, observed.kernel);
  const record: SetupRecord = {
    ...fresh,
    state: "applying",
    settings: mergeSettings(fresh, settings),
    lans: structuredClone([...plan.lans]),
  };
  try {
    await applyPlan(host, record, plan.actions, options);
  } catch (error) {
    const known = new Set(fresh.lans.map(({ bridge }) => bridge));
    await putCardsBack(
      host,
      plan.lans.flatMap(({ bridge }) => (known.has(bridge) ? [] : [bridge])),
    );
    throw error;
  }
  return plan;
}

/** The record's settings after this set-up: one without a service file leaves an earlier one's alone. */
function mergeSettings(record: SetupRecord, settings: SetupSettings): SetupRecord["settings"] {
  const { serviceFile, volantdProgram, volarProgram } = settings.serviceFile === "" ? record.settings : settings;
  const adopt = settings.adopt || record.settings.adopt;
  const firewall = firewallOf(settings, record);
  return recordedSettings({ ...settings, serviceFile, volantdProgram, volarProgram, adopt, firewall });
}

function sameSettings(record: SetupRecord, settings: SetupSettings): boolean {
  return JSON.stringify(mergeSettings(record, settings)) === JSON.stringify(recordedSettings(record.settings));
}

/** Whether the record must tell of what is there already. */
function isUnrecorded({ needed, ours, effect }: SetupAction, record: SetupRecord): boolean {
  return !needed && ours === true && effect !== undefined && findEffect(record, effectKey(effect)) === undefined;
}

/** Carries the needed actions out in order, each recorded before it begins. The record is complete when this resolves. */
async function applyPlan(
  host: SetupHost,
  start: SetupRecord,
  actions: readonly SetupAction[],
  options: SetupOptions,
): Promise<void> {
  let record = start;
  for (const action of actions) {
    if (action.effect !== undefined && isUnrecorded(action, record)) record = withEffect(record, action.effect);
  }
  await host.writeRecord(record);
  for (const { title, needed, operations, effect } of actions) {
    if (!needed) {
      options.onProgress?.({ title, outcome: "unchanged" });
      continue;
    }
    if (effect !== undefined) {
      record = withEffect(record, effect);
      await host.writeRecord(record);
    }
    for (const operation of operations) await host.execute(operation);
    // What forwarding changed is known only now. Until it is recorded, all that it might have changed is.
    if (effect?.kind === "forwarding" && knownForwarding(record) === undefined)
      record = withEffect(record, await changedSysctls(host, effect));
    options.onProgress?.({ title, outcome: "done" });
  }
  await host.writeRecord({ ...record, state: "applied" });
}

/**
 * After a failure: gives the cards of those LAN bridges their addresses and routes back, and removes the bridges. A host whose card moved by half
 * may be one that nobody reaches any more to undo it. Does what it can: the failure that brought it here is the one to tell.
 */
async function putCardsBack(host: SetupHost, bridges: readonly string[]): Promise<void> {
  if (bridges.length === 0) return;
  try {
    let record = await host.readRecord();
    if (record === undefined) return;
    const effects = record.effects.filter(
      (effect) => isLanEffect(effect) && bridges.includes(effect.kind === "lan_card" ? effect.bridge : effect.link),
    );
    const observed = await host.observe(undoRequest(record));
    for (const effect of effects.toReversed()) {
      if (!isLanEffect(effect)) continue;
      for (const operation of undoLan(effect, record, observed).operations) await host.execute(operation);
    }
    for (const effect of effects) record = withoutEffect(record, effectKey(effect));
    const lans = record.lans.filter(({ bridge }) => !bridges.includes(bridge));
    await host.writeRecord({ ...record, lans });
  } catch (error) {
    if (!(error instanceof VolantError)) throw error;
  }
}

type ForwardingEffect = Extract<SetupRecord["effects"][number], { kind: "forwarding" }>;

/**
 * The settings that forwarding changed, with what they were and are: for every link, where it changed one for some. Those that it
 * left as they were must be known as well, since turning it off changes them.
 */
async function changedSysctls(host: SetupHost, effect: ForwardingEffect): Promise<ForwardingEffect> {
  const now = await host.readSysctls();
  const both = Object.entries(effect.sysctls).flatMap(([name, { before }]) => {
    const after = now[name];
    return after === undefined ? [] : [{ name, before, after }];
  });
  const changed = new Set(both.flatMap(({ name, before, after }) => (before === after ? [] : [basename(name)])));
  const kept = both.filter(({ name }) => changed.has(basename(name)));
  return { kind: "forwarding", sysctls: Object.fromEntries(kept.map(({ name, ...values }) => [name, values])) };
}

/** What undo did; without a record there is nothing to undo. */
export interface UndoResult {
  readonly recorded: boolean;
  readonly steps: readonly UndoStep[];
}

/**
 * Takes back what the record tells of, and nothing else, and removes the record last.
 *
 * @param dryRun only looks and says what it would do
 * @throws VolantError with the reason when it can't be done safely; then nothing was changed
 */
export async function undoSetup(
  host: SetupHost,
  options: SetupOptions & { readonly dryRun?: boolean } = {},
): Promise<UndoResult> {
  const dryRun = options.dryRun === true;
  // Without a record there is nothing to keep to oneself, and no right is needed to say so.
  if (dryRun || (await host.readRecord()) === undefined) return await takeBack(host, options, dryRun);
  return await host.exclusively(() => takeBack(host, options, false));
}

async function takeBack(host: SetupHost, options: SetupOptions, dryRun: boolean): Promise<UndoResult> {
  const stored = await host.readRecord();
  if (stored === undefined) return { recorded: false, steps: [] };
  const observed = await host.observe(undoRequest(stored));
  const { steps, refusals } = planUndo(stored, observed);
  const refused = refusalError(observed.root || dryRun ? refusals : [NEEDS_ROOT]);
  if (refused !== undefined) throw refused;
  if (dryRun) return { recorded: true, steps };

  let record: SetupRecord = { ...stored, state: "undoing" };
  await host.writeRecord(record);
  for (const { title, outcome, reason, operations, intent, key } of steps) {
    if (intent !== undefined) {
      record = withEffect(record, intent);
      await host.writeRecord(record);
    }
    for (const operation of operations) await host.execute(operation);
    // The bridge's effect stays to the end: it is how a bridge without its mark is known as ours.
    if (findEffect(record, key)?.kind !== "bridge") record = withoutEffect(record, key);
    if (outcome === "undo") await host.writeRecord(record);
    options.onProgress?.({
      title,
      outcome: outcome === "undo" ? "undone" : outcome,
      ...(reason === undefined ? {} : { reason }),
    });
  }
  await host.removeGuestPolicy();
  await host.removeRecord(record.createdFolders);
  return { recorded: true, steps };
}

export interface RestoreResult {
  /** Whether the record tells of a set-up that is complete: only that can be put back. */
  readonly recorded: boolean;
  /** What was missing and is there again. */
  readonly restored: readonly string[];
}

/**
 * Puts back what a complete set-up recorded and someone, or a reboot, removed: bridge, MAC, address, up, forwarding, rules. Files
 * and services are left alone. Quick when nothing is missing, and does nothing while a set-up or an undo is at work.
 *
 * @throws VolantError with the reason when it can't be put back, such as a subnet that overlaps a new route
 */
export async function restoreNetwork(host: SetupHost): Promise<RestoreResult> {
  if ((await host.readRecord())?.state !== "applied") return { recorded: false, restored: [] };
  return await host.exclusively(async () => {
    const stored = await host.readRecord();
    if (stored?.state !== "applied") return { recorded: false, restored: [] };
    const settings = checkSettings({ ...stored.settings, serviceFile: "" });
    const restored: string[] = [];
    const onProgress = ({ title, outcome }: Progress): void => {
      if (outcome === "done") restored.push(title);
    };
    await setUp(host, settings, { onProgress });
    return { recorded: true, restored };
  });
}

/** How what a complete set-up recorded is found. */
export interface SetupCondition {
  /** `absent`: nothing is recorded. `busy`: a set-up or an undo is at work, or was ended in the middle; then nothing is judged. */
  readonly state: "absent" | "busy" | "complete";
  /** What {@link restoreNetwork} would put back, LAN bridges apart, in a few words each. */
  readonly missing: readonly string[];
  /** The kernel tells nobody when these firewall rules change: who wants to know must look. */
  readonly untold: boolean;
}

/**
 * Looks whether what set-up recorded is whole. Changes nothing, and keeps nobody waiting, least of all a set-up or an undo.
 *
 * @throws VolantError when the record can't be read
 */
export async function inspectSetup(host: SetupHost): Promise<SetupCondition> {
  const record = await host.readRecord();
  if (record === undefined) return { state: "absent", missing: [], untold: false };
  if (record.state !== "applied") return { state: "busy", missing: [], untold: false };
  const settings = checkSettings({ ...record.settings, serviceFile: "" });
  const observed = await host.observe({ ...setupRequest(settings, record), forwardingKnown: true });
  const { firewall } = observed;
  const untold = firewall.state === "usable" && firewall.untold === true;
  // A set-up that lives in another network namespace is none of this one's.
  const missing = observed.recordedNamespaceAlive ? [] : missingParts(settings, observed, record);
  return { state: "complete", missing, untold };
}
