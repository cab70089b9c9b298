/** A label of a host name is at most this long (RFC 1035, 2.3.4). */
const MAX_LABEL = 63;

/** The guest's host name: the VM's name in lower case, without what a host name can't hold; `vm` where nothing is left. */
export function hostnameOf(vmName: string): string {
  const kept = vmName.toLowerCase().replaceAll(/[^a-z0-9-]/g, "");
  const label = kept.replace(/^-+/, "").slice(0, MAX_LABEL).replace(/-+$/, "");
  return label === "" ? "vm" : label;
}
