/** Where a workload listens inside its guest, from its manifest's base URL. Pure. */

export interface WorkloadAddress {
  /** IP address inside the guest; `127.0.0.1` for localhost and for "all addresses". */
  readonly address: string;
  readonly port: number;
  /** Host and port as the base URL has them: what the workload expects in a Host header. */
  readonly authority: string;
}

const LOCAL: readonly string[] = ["localhost", "0.0.0.0", "[::]"];

/** The address in a base URL such as `http://127.0.0.1:8080`; undefined when it is none. */
export function workloadAddress(baseUrl: string | undefined): WorkloadAddress | undefined {
  const url = baseUrl !== undefined && URL.canParse(baseUrl) ? new URL(baseUrl) : undefined;
  if (url?.protocol !== "http:") return undefined;
  const { hostname, host } = url;
  const address = LOCAL.includes(hostname) ? "127.0.0.1" : hostname.replace(/^\[(.*)\]$/, "$1");
  return { address, port: url.port === "" ? 80 : Number(url.port), authority: host };
}
