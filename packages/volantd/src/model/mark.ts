/** What we own is marked as ours: `volant:<installation>:<vm id>`, an alias on a tap. */

export interface Mark {
  readonly installation: string;
  readonly vmId: number;
}

/** The alias of a VM's tap. */
export function tapAlias(mark: Mark): string {
  return `volant:${mark.installation}:${mark.vmId}`;
}

/** Why a link that bears another installation's mark keeps a VM from having its tap, and what to do. */
export function othersTap(tap: string, installation: string): { readonly message: string; readonly hint: string } {
  return {
    message: `the tap ${tap} is another Volant installation's (${installation}): it is left alone`,
    hint: `if that installation is gone: ip link delete dev ${tap}`,
  };
}

/** The mark that an alias carries; undefined when it carries none. */
export function parseTapAlias(alias: string | undefined): Mark | undefined {
  const match = /^volant:([0-9a-f]+):([1-9]\d{0,15})$/.exec(alias ?? "");
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { installation: match[1], vmId: Number(match[2]) };
}
