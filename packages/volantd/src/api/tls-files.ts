/** The certificate and key that the API shows: read at the start, and again when the files have changed. */
import { readFileSync, unwatchFile, watchFile } from "node:fs";
import { createSecureContext } from "node:tls";
import { X509Certificate, createPrivateKey } from "node:crypto";
import { VolantError } from "@volant/contract";
import type { ApiLog, TlsFiles } from "./api-config.ts";

export interface TlsMaterial {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** A renewed certificate is in use after at most so long. By asking, since tools replace files, links and folders alike. */
const LOOK_MS = 2000;

function readSetting(variable: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new VolantError("invalid", `${variable} is ${path}, which can't be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** @throws VolantError `invalid`, naming the setting whose file is wrong */
export function readTls({ certPath, keyPath }: TlsFiles): TlsMaterial {
  const cert = readSetting("VOLANT_TLS_CERT", certPath);
  const key = readSetting("VOLANT_TLS_KEY", keyPath);
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(cert);
  } catch (error) {
    throw new VolantError("invalid", `VOLANT_TLS_CERT is ${certPath}, which holds no certificate in PEM`, {
      cause: error,
    });
  }
  let belongs: boolean;
  try {
    belongs = certificate.checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    throw new VolantError(
      "invalid",
      `VOLANT_TLS_KEY is ${keyPath}, which holds no private key in PEM without a passphrase`,
      {
        cause: error,
      },
    );
  }
  if (!belongs) {
    throw new VolantError(
      "invalid",
      `VOLANT_TLS_KEY is ${keyPath}, which is not the key of the certificate ${certPath}`,
    );
  }
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    throw new VolantError(
      "invalid",
      `VOLANT_TLS_CERT is ${certPath}, which can't be used: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
  return { cert, key };
}

/**
 * Calls `use` with what the files hold whenever they have changed. While they don't belong together, as in the middle of a renewal, what was in use stays.
 *
 * @returns what ends it
 */
export function watchTls(
  files: TlsFiles,
  log: ApiLog,
  use: (material: TlsMaterial) => void,
  lookMs = LOOK_MS,
): () => void {
  const changed = (): void => {
    try {
      use(readTls(files));
      log.info({ certificate: files.certPath }, "the API's certificate has changed and is in use");
    } catch (error) {
      if (!(error instanceof VolantError)) throw error;
      log.warn({ error }, "the API's certificate has changed and can't be used; the one before stays");
    }
  };
  const paths = [files.certPath, files.keyPath];
  for (const path of paths) watchFile(path, { interval: lookMs, persistent: false }, changed);
  return () => {
    for (const path of paths) unwatchFile(path, changed);
  };
}
