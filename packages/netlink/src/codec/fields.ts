/**
 * Optional scalar attributes as a table: the attribute's number and how its value is written. Bridges and their ports have
 * dozens of these, and a table keeps reading and writing them the same.
 */
import type { AttributeCursor } from "./attributes.ts";
import type { MessageWriter } from "./writer.ts";

type Scalar = number | boolean;

interface ScalarCodec<Value extends Scalar> {
  read(attribute: AttributeCursor): Value;
  write(writer: MessageWriter, type: number, value: Value): void;
}

export interface Field<Value extends Scalar> {
  readonly type: number;
  readonly codec: ScalarCodec<Value>;
}

/** The fields of `Options`, each with a codec for its own type. */
export type FieldTable<Options> = {
  readonly [Key in keyof Options]-?: NonNullable<Options[Key]> extends boolean ? Field<boolean> : Field<number>;
};

const number = (size: "u8" | "u16" | "u32", unit = 1): ScalarCodec<number> => ({
  read: (attribute) => attribute[size]() * unit,
  write: (writer, type, value) => writer[`${size}Attribute`](type, Math.round(value / unit)),
});

const flag = (size: "u8" | "u32"): ScalarCodec<boolean> => ({
  read: (attribute) => attribute[size]() !== 0,
  write: (writer, type, value) => writer[`${size}Attribute`](type, value ? 1 : 0),
});

const u16be: ScalarCodec<number> = {
  read: (attribute) => attribute.u16be(),
  write: (writer, type, value) => writer.attribute(type, () => writer.u16be(value)),
};

export const u8Field = (type: number): Field<number> => ({ type, codec: number("u8") });
export const u16Field = (type: number): Field<number> => ({ type, codec: number("u16") });
export const u16beField = (type: number): Field<number> => ({ type, codec: u16be });
export const u32Field = (type: number): Field<number> => ({ type, codec: number("u32") });
/** Milliseconds here; USER_HZ there, hundredths of a second on every architecture. */
export const ticksField = (type: number): Field<number> => ({ type, codec: number("u32", 10) });
export const flagField = (type: number): Field<boolean> => ({ type, codec: flag("u8") });
export const wideFlagField = (type: number): Field<boolean> => ({ type, codec: flag("u32") });

type ScalarRecord = Record<string, Scalar>;

/** A reader for a table: stores the current attribute under its name; false when the table does not know it. */
export function fieldReader<Options>(
  table: FieldTable<Options>,
): (attribute: AttributeCursor, into: Partial<Options>) => boolean {
  const byType = new Map(
    Object.entries<Field<Scalar>>(table as Record<string, Field<Scalar>>).map(([name, { type, codec }]) => [
      type,
      { name, codec },
    ]),
  );
  return (attribute, into) => {
    const field = byType.get(attribute.type);
    if (field === undefined) return false;
    (into as ScalarRecord)[field.name] = field.codec.read(attribute);
    return true;
  };
}

/** Appends those fields of the table that `options` has. */
export function writeFields<Options extends object>(
  writer: MessageWriter,
  table: FieldTable<Options>,
  options: Partial<Options>,
): void {
  for (const [name, { type, codec }] of Object.entries(table as Record<string, Field<Scalar>>)) {
    const value = (options as Partial<ScalarRecord>)[name];
    if (value !== undefined) codec.write(writer, type, value);
  }
}
