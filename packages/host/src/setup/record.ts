/**
 * The record of what set-up changed: what undo works from. An effect is written down, with what was there before it, before it
 * happens; so a record may tell of an effect that did not come to pass, and never misses one that did. No I/O.
 */
import { VolantError, checkSchema } from "@volant/contract";
import { Type, type Static } from "typebox";
import { RecordedLan } from "./lan.ts";
import type { KernelIdentity } from "./observed.ts";
import { FORWARDING, ruleKey } from "./operation.ts";
import { DEFAULT_FIREWALL } from "./settings.ts";
import type { FirewallKind, SetupSettings } from "./settings.ts";

const closed = { additionalProperties: false } as const;

const Rule = Type.Object(
  {
    table: Type.Union([Type.Literal("nat"), Type.Literal("filter"), Type.Literal("raw")]),
    chain: Type.Union([Type.Literal("POSTROUTING"), Type.Literal("FORWARD"), Type.Literal("PREROUTING")]),
    match: Type.Array(Type.String()),
  },
  closed,
);

/** Whether something existed before; null when nobody could tell. */
const Existed = Type.Union([Type.Boolean(), Type.Null()]);

const Effect = Type.Union([
  Type.Object({ kind: Type.Literal("bridge"), link: Type.String(), mac: Type.String() }, closed),
  /** Someone else's bridge, used as it is; its MAC is pinned to what it was. */
  Type.Object({ kind: Type.Literal("adopted_bridge"), link: Type.String(), mac: Type.String() }, closed),
  /** The bridge was down. */
  Type.Object({ kind: Type.Literal("up"), link: Type.String() }, closed),
  Type.Object(
    { kind: Type.Literal("address"), link: Type.String(), address: Type.String(), prefixLength: Type.Integer() },
    closed,
  ),
  Type.Object(
    {
      kind: Type.Literal("forwarding"),
      /** What forwarding changed. Without `after`: everything it might have changed, because set-up ended in between. */
      sysctls: Type.Record(
        Type.String(),
        Type.Object({ before: Type.String(), after: Type.Optional(Type.String()) }, closed),
      ),
      /** Undo has begun to give the settings these values. */
      restoring: Type.Optional(Type.Record(Type.String(), Type.String())),
    },
    closed,
  ),
  /** A LAN bridge of our making, with its card's MAC. */
  Type.Object({ kind: Type.Literal("lan_bridge"), link: Type.String(), mac: Type.String() }, closed),
  /** A card that was put on such a bridge, with `disable_ipv6` as it was; null without IPv6. */
  Type.Object(
    {
      kind: Type.Literal("lan_card"),
      link: Type.String(),
      bridge: Type.String(),
      ipv6Disabled: Type.Union([Type.String(), Type.Null()]),
    },
    closed,
  ),
  Type.Object({ kind: Type.Literal("nft_table"), name: Type.String(), comment: Type.String() }, closed),
  Type.Object({ kind: Type.Literal("rule"), rule: Rule, tableExisted: Existed, chainExisted: Existed }, closed),
  Type.Object(
    {
      kind: Type.Literal("file"),
      path: Type.String(),
      content: Type.String(),
      before: Type.Union([Type.String(), Type.Null()]),
    },
    closed,
  ),
  /** The unit was not enabled. */
  Type.Object({ kind: Type.Literal("service"), unit: Type.String() }, closed),
]);
export type Effect = Static<typeof Effect>;

/** The kinds of effect that live in the kernel, and end with it. */
const KERNEL_EFFECTS: ReadonlySet<Effect["kind"]> = new Set([
  "bridge",
  "up",
  "address",
  "forwarding",
  "rule",
  "nft_table",
  "lan_bridge",
  "lan_card",
]);

const Settings = Type.Object(
  {
    bridge: Type.String(),
    subnet: Type.String(),
    hostIp: Type.String(),
    runtimeDir: Type.String(),
    logDir: Type.String(),
    workDir: Type.String(),
    bzImage: Type.String(),
    vmlinux: Type.String(),
    serviceFile: Type.String(),
    volantdProgram: Type.String(),
    volarProgram: Type.String(),
    adopt: Type.Boolean(),
    firewall: Type.Union([Type.Literal("iptables"), Type.Literal("nftables")]),
  },
  closed,
);

const RECORD_VERSION = 1;

const Record = Type.Object(
  {
    version: Type.Literal(RECORD_VERSION),
    /** `applying` and `undoing` mean that one of them is at work, or was ended in the middle. */
    state: Type.Union([Type.Literal("applying"), Type.Literal("applied"), Type.Literal("undoing")]),
    settings: Settings,
    kernel: Type.Object({ bootId: Type.String(), networkNamespace: Type.String() }, closed),
    /** Folders made for the record itself, the outermost first. */
    createdFolders: Type.Array(Type.String()),
    /** What VMs in mode `dhcp` may join, besides the managed bridge. What is said of a card is what is put back after a reboot. */
    lans: Type.Array(RecordedLan),
    /** In the order in which they were brought about. */
    effects: Type.Array(Effect),
  },
  closed,
);
export type SetupRecord = Static<typeof Record>;

/** The record's file, in the work folder. */
export const RECORD_FILE = "setup.json";

/** Settings that may leave the firewall to what is recorded. */
export type SettingsToRecord = Omit<SetupRecord["settings"], "firewall"> & Pick<SetupSettings, "firewall">;

/** Just the settings that a record holds, in its order: two that say the same are the same text as JSON. */
export function recordedSettings(settings: SettingsToRecord): SetupRecord["settings"] {
  const { bridge, subnet, hostIp, runtimeDir, logDir, workDir, bzImage, vmlinux, serviceFile } = settings;
  const { volantdProgram, volarProgram, adopt, firewall = DEFAULT_FIREWALL } = settings;
  const network = { bridge, subnet, hostIp };
  const files = { runtimeDir, logDir, workDir, bzImage, vmlinux, serviceFile, volantdProgram, volarProgram };
  return { ...network, ...files, adopt, firewall };
}

/** A record without effects. */
export function emptyRecord(
  settings: SettingsToRecord,
  kernel: KernelIdentity,
  createdFolders: readonly string[],
): SetupRecord {
  return {
    version: RECORD_VERSION,
    state: "applying",
    settings: recordedSettings(settings),
    kernel: { ...kernel },
    createdFolders: [...createdFolders],
    lans: [],
    effects: [],
  };
}

/**
 * The record that a file holds.
 *
 * @param path the file's, for the error
 * @throws VolantError `wrong_state` when it is not a record, or one of a newer version
 */
export function parseRecord(text: string, path: string): SetupRecord {
  const hint = "it is written by volar setup alone: if it is beyond repair, move it away and undo by hand";
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new VolantError("wrong_state", `the record of the host's set-up, ${path}, is not JSON`, { hint, cause });
  }
  if (typeof value === "object" && value !== null && "version" in value && value.version !== RECORD_VERSION) {
    throw new VolantError(
      "wrong_state",
      `the record of the host's set-up, ${path}, has version ${JSON.stringify(value.version)}, and this Volant knows ${RECORD_VERSION}`,
      { hint: "use the version of Volant that set the host up" },
    );
  }
  try {
    return checkSchema(Record, withLaterFields(value), `the record of the host's set-up, ${path},`);
  } catch (cause) {
    if (!(cause instanceof VolantError)) throw cause;
    throw new VolantError("wrong_state", cause.message, { hint, cause });
  }
}

/** A record from before there were these choices: there was iptables, and no LAN. */
function withLaterFields(value: unknown): unknown {
  if (typeof value !== "object" || value === null || !("settings" in value)) return value;
  const { settings } = value;
  if (typeof settings !== "object" || settings === null) return value;
  return { lans: [], ...value, settings: { firewall: "iptables", ...settings } };
}

/** The record as its file holds it. */
export function formatRecord(record: SetupRecord): string {
  return `${JSON.stringify(record, null, 2)}\n`;
}

/** What an effect is about: at most one effect of a record bears each key. */
export function effectKey(effect: Effect): string {
  switch (effect.kind) {
    case "bridge":
    case "adopted_bridge":
    case "up":
    case "lan_bridge":
    case "lan_card":
      return `${effect.kind} ${effect.link}`;
    case "address":
      return `address ${effect.address}/${effect.prefixLength} ${effect.link}`;
    case "forwarding":
      return "forwarding";
    case "nft_table":
      return `nft_table ${effect.name}`;
    case "rule":
      return `rule ${ruleKey(effect.rule)}`;
    case "file":
      return `file ${effect.path}`;
    case "service":
      return `service ${effect.unit}`;
  }
}

/** The firewall that a set-up works with: the one that was asked for, else the one that the host is set up with. */
export function firewallOf(settings: Pick<SetupSettings, "firewall">, record: SetupRecord | undefined): FirewallKind {
  return settings.firewall ?? record?.settings.firewall ?? DEFAULT_FIREWALL;
}

/** Names of the LAN bridges that set-up made: whose frames the firewall must let pass. */
export function madeLanBridges(lans: readonly RecordedLan[]): string[] {
  return lans.flatMap(({ bridge, card }) => (card === null ? [] : [bridge]));
}

/** What is recorded of forwarding, once set-up has turned it on and seen what that changed; undefined before, and once an undo has begun. */
export function knownForwarding(
  record: SetupRecord | undefined,
): (Effect & { readonly kind: "forwarding" }) | undefined {
  const effect = findEffect(record, "forwarding");
  if (effect?.kind !== "forwarding" || effect.restoring !== undefined) return undefined;
  return effect.sysctls[FORWARDING]?.after === "1" ? effect : undefined;
}

/** The switch for forwarding of links that come later (ip-sysctl.rst, conf/default). */
const LATER_FORWARDING = "net/ipv4/conf/default/forwarding";

/** Names (below /proc/sys) of the links' own switches for forwarding that {@link linkForwarding} judges by. */
export function judgedForwarding(record: SetupRecord | undefined): string[] {
  if (record === undefined) return [];
  return [...new Set([LATER_FORWARDING, `net/ipv4/conf/${record.settings.bridge}/forwarding`, ...switched(record)])];
}

/** Those that set-up turned on. */
function switched(record: SetupRecord): string[] {
  const effect = findEffect(record, "forwarding");
  return Object.entries(effect?.kind === "forwarding" ? effect.sysctls : {}).flatMap(([name, { after }]) =>
    // That of all links is the switch itself.
    /^net\/ipv4\/conf\/(?!all\/)[^/]+\/forwarding$/.test(name) && after === "1" ? [name] : [],
  );
}

/**
 * Names of those that are to be on: which set-up turned on, and that of the managed bridge it made, where links have it from their beginning. Others are the
 * administrator's.
 */
export function linkForwarding(record: SetupRecord | undefined, sysctls: Readonly<Record<string, string>>): string[] {
  if (record === undefined) return [];
  const { bridge } = record.settings;
  const hasIt = findEffect(record, `bridge ${bridge}`) !== undefined && sysctls[LATER_FORWARDING] === "1";
  return [...new Set([...(hasIt ? [`net/ipv4/conf/${bridge}/forwarding`] : []), ...switched(record)])];
}

/** The record's effect of that key. */
export function findEffect(record: SetupRecord | undefined, key: string): Effect | undefined {
  return record?.effects.find((effect) => effectKey(effect) === key);
}

/** What was there before both: a repeated effect must not take our own first one for what it found. */
function mergeEffects(old: Effect | undefined, next: Effect): Effect {
  if (old === undefined || old.kind === "lan_card") return old ?? next;
  if (old.kind === "rule" && next.kind === "rule") {
    return {
      ...next,
      tableExisted: old.tableExisted === false ? false : next.tableExisted,
      chainExisted: old.chainExisted === false ? false : next.chainExisted,
    };
  }
  return next;
}

/** The record with this effect in it, where it was if its key was there already, else last. */
export function withEffect(record: SetupRecord, effect: Effect): SetupRecord {
  const key = effectKey(effect);
  const index = record.effects.findIndex((other) => effectKey(other) === key);
  const merged = mergeEffects(record.effects[index], effect);
  const effects = index === -1 ? [...record.effects, merged] : record.effects.with(index, merged);
  return { ...record, effects };
}

/** The record without the effect of that key. */
export function withoutEffect(record: SetupRecord, key: string): SetupRecord {
  return { ...record, effects: record.effects.filter((effect) => effectKey(effect) !== key) };
}

/** Whether the kernel that the record tells of has gone: another boot, or another network namespace. */
export function isStale(record: SetupRecord, kernel: KernelIdentity): boolean {
  return record.kernel.bootId !== kernel.bootId || record.kernel.networkNamespace !== kernel.networkNamespace;
}

/** The record as it is true of this kernel: what lived in one that has gone, has gone with it. */
export function refreshRecord(record: SetupRecord, kernel: KernelIdentity): SetupRecord {
  if (!isStale(record, kernel)) return record;
  const effects = record.effects.filter((effect) => !KERNEL_EFFECTS.has(effect.kind));
  return { ...record, kernel: { ...kernel }, effects };
}
