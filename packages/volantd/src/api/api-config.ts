import type { VolantError } from "@volant/contract";

/** What the API needs to know; volantd's configuration has these fields. */
export interface ApiConfig {
  /** Address to listen on, such as `127.0.0.1`, `0.0.0.0` or `::1`. */
  readonly listenHost: string;
  /** TCP port; 0 lets the kernel choose one. */
  readonly listenPort: number;
  /** VOLANT_API_ADVERTISE: `host`, `host:port` or a URL under which clients reach this API. */
  readonly advertise?: string | undefined;
  /** VOLANT_API_KEY. Without it every client that reaches the API may use it. */
  readonly apiKey?: string | undefined;
  /** VOLANT_API_ALLOW_CIDR: networks that clients may come from; empty allows all. */
  readonly allowCidrs: readonly string[];
  /** No request is let in over TCP without a key, even while there is none: others can reach that address. */
  readonly keyNeeded?: boolean | undefined;
  /** VOLANT_API_SOCKET: the path of the Unix socket beside TCP; undefined for none. */
  readonly socketPath?: string | undefined;
  /** VOLANT_TLS_CERT and VOLANT_TLS_KEY; undefined for HTTP without TLS. */
  readonly tls?: TlsFiles | undefined;
  /** VOLANT_TRUSTED_PROXIES: networks of proxies whose `X-Forwarded-For` is believed. */
  readonly trustedProxies?: readonly string[] | undefined;
  /** VOLANT_API_RATE: requests per second of one key, or of one address without a key; undefined for any number. */
  readonly ratePerSecond?: number | undefined;
  /** TCP connections at a time. Default: 1,024. */
  readonly maxConnections?: number | undefined;
  /** VOLANT_CORS_ORIGINS: origins such as `https://console.example` whose pages may call the API; `*` allows all. */
  readonly corsOrigins: readonly string[];
  /** Largest file that is taken in, in bytes. Default: 64 GiB. */
  readonly maxImageBytes?: number | undefined;
}

export interface TlsFiles {
  readonly certPath: string;
  readonly keyPath: string;
}

/** Where the API writes what an operator should see. Never gets a key or a request's body. */
export interface ApiLog {
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
}

/** What a gate says: undefined lets the request pass, an error refuses it. */
export type Verdict = VolantError | undefined;

/** Of all clients. One address may have half of them. */
export const DEFAULT_MAX_CONNECTIONS = 1024;
export const MAX_JSON_BYTES = 1_048_576;
export const DEFAULT_MAX_IMAGE_BYTES = 64 * 1024 ** 3;
/** Silence after which proxies and clients may give a stream up is seldom below 30 s. */
export const HEARTBEAT_MS = 15_000;
/** A client that sends nothing of its announced body for this long is cut off. */
export const BODY_IDLE_MS = 30_000;
