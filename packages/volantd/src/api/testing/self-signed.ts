/** A certificate that signs itself, for tests: DER put together by hand (X.690; RFC 5280, section 4.1), since Node makes keys and no certificates. */
import { generateKeyPairSync, sign } from "node:crypto";

export interface SelfSigned {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
}

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}

const sequence = (...parts: readonly Uint8Array[]) => der(0x30, ...parts);
const text = (value: string) => der(0x0c, Buffer.from(value));
const time = (value: string) => der(0x17, Buffer.from(value));
const hex = (value: string) => Buffer.from(value, "hex");
/** ecdsa-with-SHA256, commonName, subjectAltName: 1.2.840.10045.4.3.2, 2.5.4.3, 2.5.29.17. */
const ALGORITHM = sequence(hex("06082a8648ce3d040302"));
const COMMON_NAME = hex("0603550403");
const ALTERNATIVE_NAME = hex("0603551d11");

/** A certificate for `localhost` and 127.0.0.1, until 2049. @param commonName tells it from others */
export function selfSigned(commonName: string): SelfSigned {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const name = sequence(der(0x31, sequence(COMMON_NAME, text(commonName))));
  const names = sequence(der(0x82, Buffer.from("localhost")), der(0x87, Buffer.from([127, 0, 0, 1])));
  const body = sequence(
    der(0xa0, hex("020102")),
    der(0x02, hex("01")),
    ALGORITHM,
    name,
    sequence(time("250101000000Z"), time("491231235959Z")),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(sequence(ALTERNATIVE_NAME, der(0x04, names)))),
  );
  const signature = der(0x03, Buffer.from([0]), sign("sha256", body, privateKey));
  const base64 = sequence(body, ALGORITHM, signature).toString("base64");
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${base64.replaceAll(/.{64}/g, "$&\n")}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}
