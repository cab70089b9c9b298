/**
 * What a restore comes to: which VMs go on, which don't, and what of the backup's rows has to be raised, so that no id and no generation is ever
 * given out twice. Pure.
 */

/** A VM's row, as far as a restore has to know it. */
export interface VmRow {
  readonly id: number;
  readonly name: string;
  readonly desired: string;
  readonly generation: number;
  readonly startedGeneration: number;
  readonly endedGeneration: number;
  /** Whatever is in force for it besides: two that are equal were started alike. */
  readonly inForce: string;
}

/** What a database of Volant's holds. */
export interface DatabaseFacts {
  readonly installation: string;
  readonly schemaVersion: number;
  readonly vms: readonly VmRow[];
  readonly plugins: number;
  /** The last id that was given out, by table. */
  readonly lastIds: Readonly<Record<string, number>>;
  readonly events: EventIds;
}

/** Ids of events, which are given out apart from those of tables. */
export interface EventIds {
  /** The newest that is kept; 0 where none is. */
  readonly last: number;
  /** Up to this one ids may have been given out; 0 where none was. */
  readonly reserved: number;
}

/** A hypervisor that runs on this host. */
export interface RunningVm {
  readonly installation: string;
  readonly vmId: number;
  readonly generation: number;
}

/** New numbers of a VM's row. What of them is not named stays. */
export interface RaisedRow {
  readonly id: number;
  readonly generation: number;
  readonly startedGeneration: number;
  readonly endedGeneration: number;
}

/** What becomes of what is there now. */
export interface RestorePlan {
  /** Names of VMs that run and go on, untouched. */
  readonly goOn: readonly string[];
  /** They run, were started anew since the backup with other settings, and are started once more with those of the backup. */
  readonly restart: readonly string[];
  /** They run, and the backup has them stopped or being deleted. */
  readonly stop: readonly string[];
  /** The backup has them running, and they don't run: they are shown as ended. */
  readonly ended: readonly string[];
  /** They run and are not in the backup: volantd ends and removes them at its start. */
  readonly remove: readonly string[];
  /** They are in the database of now and not in the backup, and don't run. */
  readonly forget: readonly string[];
  /** They run under the installation of the database of now, which is not the backup's: nobody looks after them any more. */
  readonly abandon: readonly string[];
  readonly raised: readonly RaisedRow[];
  readonly lastIds: Readonly<Record<string, number>>;
  /** Events after `lostAfter` and before `reserved` were told, or may have been, and are in the database that goes; the next one has a higher id than all. */
  readonly events: { readonly lostAfter: number; readonly reserved: number };
}

/** Nobody knows which ids a database gave out that can't be read: as many as volantd can have reserved in a thousand starts since the backup. */
const UNKNOWN_EVENT_IDS = 1e12;

/**
 * @param now the database that is to be replaced; undefined where there is none, or it can't be read
 * @param running on this host, of whatever installation
 */
export function planRestore(
  backup: DatabaseFacts,
  now: DatabaseFacts | undefined,
  running: readonly RunningVm[],
): RestorePlan {
  const ours = now?.installation === backup.installation ? now : undefined;
  const current = new Map((ours?.vms ?? []).map((vm) => [vm.id, vm]));
  const processes = new Map<number, number>();
  for (const { installation, vmId, generation } of running) {
    if (installation === backup.installation) {
      processes.set(vmId, Math.max(generation, processes.get(vmId) ?? 0));
    }
  }
  const restored = backup.vms.map((vm) => decide(vm, current.get(vm.id), processes.get(vm.id)));
  const named = (outcome: Outcome): string[] =>
    restored.filter((entry) => entry.outcome === outcome).map(({ vm }) => vm.name);
  const known = new Set(backup.vms.map(({ id }) => id));
  const labelOf = (id: number): string => current.get(id)?.name ?? `the one with id ${id}`;
  const lostIds = [...current.keys()].filter((id) => !known.has(id));
  return {
    goOn: named("goes on"),
    restart: named("restarts"),
    stop: named("stops"),
    ended: named("has ended"),
    remove: [...processes.keys()].filter((id) => !known.has(id)).map(labelOf),
    forget: lostIds.filter((id) => !processes.has(id)).map(labelOf),
    abandon: now === undefined || ours !== undefined ? [] : abandoned(now, running),
    raised: restored.flatMap(({ raised }) => raised ?? []),
    lastIds: lastIdsOf(backup, ours, processes),
    events: eventIdsOf(backup.events, now?.events),
  };
}

type Outcome = "goes on" | "restarts" | "stops" | "has ended" | "as it was";

interface Decision {
  readonly vm: VmRow;
  readonly outcome: Outcome;
  readonly raised?: RaisedRow;
}

/** @param process the generation of the VM's hypervisor; undefined where none runs */
function decide(vm: VmRow, now: VmRow | undefined, process: number | undefined): Decision {
  const highest = Math.max(vm.generation, now?.generation ?? 0, process ?? 0);
  const raise = (generation: number, started: number, ended: number): RaisedRow[] =>
    generation === vm.generation && started === vm.startedGeneration && ended === vm.endedGeneration
      ? []
      : [{ id: vm.id, generation, startedGeneration: started, endedGeneration: ended }];
  const decided = (outcome: Outcome, [raised]: RaisedRow[]): Decision =>
    raised === undefined ? { vm, outcome } : { vm, outcome, raised };

  if (process === undefined) {
    const isDue = vm.desired === "running" && vm.endedGeneration < vm.generation;
    const wasStarted = vm.startedGeneration === vm.generation || highest > vm.generation;
    // What was never started is started as soon as volantd looks, and what was running is not: nobody has asked for that now.
    if (!isDue || !wasStarted) {
      const isOver = vm.endedGeneration === vm.generation;
      return decided(
        "as it was",
        raise(highest, isOver ? highest : vm.startedGeneration, isOver ? highest : vm.endedGeneration),
      );
    }
    return decided("has ended", raise(highest, highest, vm.endedGeneration));
  }
  if (vm.desired !== "running") return decided("stops", raise(highest, highest, vm.endedGeneration));
  const isSame = process === vm.generation || now?.inForce === vm.inForce;
  if (isSame && process === highest)
    return decided("goes on", raise(process, process, vm.endedGeneration === process ? 0 : vm.endedGeneration));
  // A generation that nothing has had yet: the old process is ended before this one is started.
  return decided(
    "restarts",
    raise(highest + 1, Math.min(vm.startedGeneration, highest), Math.min(vm.endedGeneration, highest)),
  );
}

function abandoned(now: DatabaseFacts, running: readonly RunningVm[]): string[] {
  const ids = new Set(running.filter(({ installation }) => installation === now.installation).map(({ vmId }) => vmId));
  return now.vms.filter(({ id }) => ids.has(id)).map(({ name }) => name);
}

function lastIdsOf(
  backup: DatabaseFacts,
  now: DatabaseFacts | undefined,
  processes: ReadonlyMap<number, number>,
): Record<string, number> {
  const lastIds: Record<string, number> = { ...backup.lastIds };
  for (const [table, id] of Object.entries(now?.lastIds ?? {})) {
    lastIds[table] = Math.max(id, lastIds[table] ?? 0);
  }
  lastIds["vms"] = Math.max(lastIds["vms"] ?? 0, ...processes.keys());
  return lastIds;
}

/** Readers name the last id that they have, whoever told it: the next is above those of either database, of whatever installation. */
function eventIdsOf(backup: EventIds, now: EventIds | undefined): RestorePlan["events"] {
  const used = now?.reserved ?? backup.reserved + UNKNOWN_EVENT_IDS;
  return { lostAfter: backup.last, reserved: Math.max(backup.reserved, used) + 1 };
}

/** Whether something that is there now is ended, forgotten or left alone by it. */
export function isDestructive(plan: RestorePlan): boolean {
  return [plan.restart, plan.stop, plan.remove, plan.forget, plan.abandon].some((names) => names.length > 0);
}
