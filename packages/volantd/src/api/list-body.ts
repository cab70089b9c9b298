/**
 * A list of VMs as JSON. The list of a thousand VMs is 650 KiB, most of which are as they were in the list before: those bytes are copied, and only what has
 * changed becomes text. A VM that is the same object is unchanged (engine/shown-vms.ts).
 */
import type { Vm } from "@volant/contract";
import { Recent } from "../recent.ts";

/** A list as it was written, and where in it each VM ends. */
export interface ListBody {
  readonly vms: readonly Vm[];
  readonly json: Buffer;
  readonly ends: Uint32Array;
}

const OPEN = 0x5b;
const COMMA = 0x2c;
const CLOSE = 0x5d;

function startOf({ ends }: ListBody, index: number): number {
  return (index === 0 ? 0 : (ends[index - 1] ?? 0)) + 1;
}

/** The list's JSON, whole. @param before an earlier answer to the same question, of which nothing has been changed */
export function listBody(vms: readonly Vm[], before?: ListBody): ListBody {
  if (before?.vms === vms) return before;
  // Where VMs came or went, those behind them have moved by so many places.
  const shift = (before?.vms.length ?? 0) - vms.length;
  const parts = vms.map((vm, index): string | number => {
    if (before?.vms[index] === vm) return index;
    return before?.vms[index + shift] === vm ? index + shift : JSON.stringify(vm);
  });
  const ends = new Uint32Array(vms.length);
  let at = 0;
  for (const [index, part] of parts.entries()) {
    const bytes =
      typeof part === "string"
        ? Buffer.byteLength(part)
        : (before?.ends[part] ?? 0) - startOf(before as ListBody, part);
    at += 1 + bytes;
    ends[index] = at;
  }
  // Of its own: a slice of Node's pool would keep eight KiB for a list of one.
  const json = Buffer.allocUnsafeSlow(Math.max(at, 1) + 1);
  json[0] = OPEN;
  at = 1;
  for (const [index, part] of parts.entries()) {
    if (index > 0) json[at++] = COMMA;
    if (typeof part === "string") at += json.write(part, at);
    else at += (before as ListBody).json.copy(json, at, startOf(before as ListBody, part), before?.ends[part]);
  }
  json[at] = CLOSE;
  return { vms, json, ends };
}

/** How many questions' answers are kept: those of a few clients that ask again and again. */
const MOST_LISTS = 4;

/** What was answered last to each question. */
export class ListBodies {
  readonly #known = new Recent<ListBody>(MOST_LISTS);

  /** @param question text that is equal for equal questions */
  json(question: string, vms: readonly Vm[]): Buffer {
    const body = listBody(vms, this.#known.get(question));
    this.#known.put(question, body);
    return body.json;
  }
}
