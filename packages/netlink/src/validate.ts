/** Arguments are checked before they become bytes: the kernel's own complaint would be a bare EINVAL. Pure. */
import { addressBits, familyOf, type IpFamily, parseMac } from "./codec/ip-text.ts";
import { MAX_ALIAS_BYTES, MAX_NAME_BYTES } from "./codec/link.ts";
import { splitDestination } from "./codec/route.ts";
import { invalidArgument } from "./errors.ts";

/**
 * A link name that the kernel takes as it is (dev_valid_name): 1 to 15 bytes, no slash, colon or white space, not `.` or
 * `..`, and no `%`, which would make it a pattern.
 */
export function checkLinkName(operation: string, name: string): void {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0) throw invalidArgument(operation, JSON.stringify(name), "a link name can't be empty");
  if (bytes > MAX_NAME_BYTES) {
    throw invalidArgument(operation, name, `a link name has at most ${MAX_NAME_BYTES} bytes, this one has ${bytes}`);
  }
  if (name === "." || name === ".." || /[/:%\s\0]/.test(name)) {
    throw invalidArgument(operation, JSON.stringify(name), "a link name can't have a slash, colon, % or white space");
  }
}

/** Six bytes as `02:00:00:00:00:01`, and not a group address. */
export function checkMac(operation: string, object: string, mac: string): void {
  const bytes = parseMac(mac);
  if (bytes === undefined) throw invalidArgument(operation, object, `${JSON.stringify(mac)} is not a MAC address`);
  if (((bytes[0] ?? 0) & 1) === 1) throw invalidArgument(operation, object, `${mac} is a group address`);
}

export function checkAlias(operation: string, object: string, alias: string): void {
  const bytes = Buffer.byteLength(alias);
  if (bytes > MAX_ALIAS_BYTES || alias.includes("\0")) {
    throw invalidArgument(operation, object, `an alias has at most ${MAX_ALIAS_BYTES} bytes and no zero byte`);
  }
}

/** A whole number in [least, most]. `what` names it: "mtu". */
export function checkNumber(
  operation: string,
  object: string,
  what: string,
  value: number,
  range: readonly [least: number, most: number],
): void {
  if (!Number.isInteger(value) || value < range[0] || value > range[1]) {
    throw invalidArgument(
      operation,
      object,
      `${what} must be a whole number from ${range[0]} to ${range[1]}, not ${value}`,
    );
  }
}

/** The family of an address. */
export function checkIp(operation: string, address: string): IpFamily {
  const family = familyOf(address);
  if (family === undefined) throw invalidArgument(operation, JSON.stringify(address), "this is not an IP address");
  return family;
}

export function checkPrefixLength(operation: string, address: string, family: IpFamily, prefixLength: number): void {
  checkNumber(operation, address, "the prefix length", prefixLength, [0, addressBits(family)]);
}

/** The family of `10.0.0.0/8`, `10.0.0.1` or, with a family given, `default`. */
export function checkDestination(operation: string, destination: string, family: IpFamily | undefined): IpFamily {
  if (destination === "default") return family ?? "inet";
  const [address, length] = splitDestination(familyOf(destination.split("/")[0] ?? "") ?? "inet", destination);
  const found = checkIp(operation, address);
  checkNumber(operation, destination, "the prefix length", length, [0, addressBits(found)]);
  return found;
}
