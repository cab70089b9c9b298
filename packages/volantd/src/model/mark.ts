/** What we own is marked as ours: `volant:<installation>:<vm id>`, an alias on a tap. */

export interface Mark {
  readonly installation: string;
  readonly vmId: number;
}

/** The alias of a VM's tap. */
export function tapAlias(mark: Mark): string {
  return `volant:${mark.installation}:${mark.vmId}`;
}

/** The mark that an alias carries; undefined when it carries none. */
export function parseTapAlias(alias: string | undefined): Mark | undefined {
  const match = /^volant:([0-9a-f]+):([1-9]\d{0,15})$/.exec(alias ?? "");
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { installation: match[1], vmId: Number(match[2]) };
}
