/** The list of kill points: what the tests kill volantd at, for people to read, and to be held against what the code passes. Pure. */
import { bareName } from "./choice.ts";

const HEADER = `# Where test/crash/kill-points.test.ts kills volantd: the awaits, and what changes the world without one, that the scenarios pass; by file and function.
# Made by that test with VOLANT_KILL_POINTS=list. It fails when a function of this list is passed no longer, or one is passed that is not in it.
`;
/** `file function: text (phase)` */
const POINT = /^(\S+) (.*?): (.*) \((waits|goes on|before|after)\)$/;

interface Site {
  readonly place: string;
  readonly text: string;
}

function siteOf(point: string): Site {
  const [, file = "", name = "", text = ""] = POINT.exec(bareName(point)) ?? [];
  if (file === "") throw new Error(`this is no point: ${point}`);
  return { place: `${file} ${name}`, text };
}

/** The list's text for these points, as far as they are in these functions. */
export function listText(points: Iterable<string>, functions: ReadonlySet<string>): string {
  const places = new Map<string, Set<string>>();
  for (const { place, text } of [...points].map(siteOf)) {
    if (functions.has(place)) places.set(place, (places.get(place) ?? new Set()).add(text));
  }
  const blocks = [...places].sort(([a], [b]) => (a < b ? -1 : 1));
  const lines = blocks.flatMap(([place, texts]) => ["", place, ...[...texts].sort().map((text) => `  ${text}`)]);
  return `${HEADER}${lines.join("\n")}\n`;
}

/**
 * What falls into a run or not: looks at the host and at consoles' sizes, which timers have made every few seconds; and rests between looks that follow upon each
 * other, which a busy machine makes more; and rests in a look at many processes.
 */
const BY_CHANCE: ReadonlySet<string> = new Set([
  "volantd/src/engine/engine.ts #lookAround",
  "volantd/src/runtime/process-table.ts scanAlone",
  "volantd/src/engine/engine.ts #pauseBetweenLooks",
  "volantd/src/engine/deployment-keeper.ts #rest",
  "volantd/src/runtime/qemu/qemu-runtime.ts #rotate",
  "volantd/src/runtime/qemu/qemu-runtime.ts (anonymous)",
]);

/**
 * What looks whether set-up's work is whole: that begins when any program has changed rules or links, and changes nothing where it is. And what the doctor says of the host,
 * which each volantd looks at beside all else when it starts, and is done with late on a busy machine.
 */
const HOST_IS_LOOKED_AT =
  /^(?:host\/src\/(?:setup|linux|doctor)\/|volantd\/src\/network\/setup-watch\.ts |netlink\/src\/forwarding-events\.ts )/;

function isByChance(place: string): boolean {
  return BY_CHANCE.has(place) || HOST_IS_LOOKED_AT.test(place);
}

/** The functions, `<file> <name>`, that these points are in. */
export function functionsOf(points: Iterable<string>): Set<string> {
  return new Set([...points].map((point) => siteOf(point).place).filter((place) => !isByChance(place)));
}

/**
 * Where the list is not that of the code, a line for each function. Which of a function's awaits a run passes may depend on how fast others are, so that lines are not
 * compared; and what one run alone passes is no reason to change the list.
 *
 * @param steady functions that every run of a scenario passes
 * @param passed functions that were passed at all
 */
export function differingFunctions(list: string, steady: ReadonlySet<string>, passed: ReadonlySet<string>): string[] {
  const listed = new Set(list.split("\n").filter((line) => /^[^\s#]/.test(line) && !isByChance(line)));
  return [
    ...[...steady].filter((place) => !listed.has(place)).map((place) => `not in the list: ${place}`),
    ...[...listed].filter((place) => !passed.has(place)).map((place) => `not passed any longer: ${place}`),
  ];
}
