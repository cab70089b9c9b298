/** enum rt_scope_t (include/uapi/linux/rtnetlink.h): how far an address or a destination reaches. */
const SCOPES = { global: 0, site: 200, link: 253, host: 254, nowhere: 255 } as const;

/** A scope by name, or by its number where it has none. */
export type Scope = keyof typeof SCOPES | number;

const NAMES = new Map<number, Scope>(Object.entries(SCOPES).map(([name, number]) => [number, name as Scope]));

export function scopeName(number: number): Scope {
  return NAMES.get(number) ?? number;
}

export function scopeNumber(scope: Scope): number {
  return typeof scope === "number" ? scope : SCOPES[scope];
}
