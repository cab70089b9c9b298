/** The names and defaults that users rely on; the reference for each is the table of settings in the documentation. */
export const DEFAULTS = {
  apiListen: "127.0.0.1:7777",
  /** The API's Unix socket, in the runtime folder. */
  socketName: "api.sock",
  apiBase: "http://127.0.0.1:7777",
  bridge: "vbr0",
  subnet: "192.168.127.0/24",
  hostIp: "192.168.127.1",
  workDir: "/var/lib/volant",
  serviceFile: "/etc/systemd/system/volantd.service",
} as const;

/** Version of every part of Volant: they are released together. */
export const VOLANT_VERSION = "0.1.0";

/** Smallest guest memory that boots, in MiB, before the guest's own files are counted. */
export const MIN_MEMORY_MIB = 72;
