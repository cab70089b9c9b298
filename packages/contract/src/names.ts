import { Type } from "typebox";
import { VolantError } from "./errors.ts";

/**
 * A VM's, plugin's or deployment's name: letters, digits, `.`, `_` and `-`, starting with a letter or digit, at most 63 characters
 * (RFC 1035's label length, so that a name can become a host name, and a file name on every file system).
 */
export const NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";
export const MAX_NAME_LENGTH = 63;

export const nameRules = {
  pattern: NAME_PATTERN,
  maxLength: MAX_NAME_LENGTH,
  description: "Letters, digits, '.', '_' and '-', starting with a letter or digit; at most 63 characters",
} as const;

export const Name = Type.String(nameRules);
/** The title is the kind of object in sentences about a bad name. */
export const VmName = Type.String({ title: "VM", ...nameRules });
export const PluginName = Type.String({ title: "plugin", ...nameRules });
export const DeploymentName = Type.String({ title: "deployment", ...nameRules });

const namePattern = new RegExp(NAME_PATTERN);

/**
 * The name, if it is one.
 *
 * @param what the kind of object, such as "VM" or "plugin"
 * @throws VolantError `invalid`, saying what is wrong with it
 */
export function checkName(what: string, name: string): string {
  if (namePattern.test(name)) return name;
  if (name === "") throw new VolantError("invalid", `a ${what} needs a name, and it is empty`);
  if (name.length > MAX_NAME_LENGTH) {
    throw new VolantError(
      "invalid",
      `the ${what} name is ${name.length} characters long, and at most ${MAX_NAME_LENGTH} are allowed`,
    );
  }
  const bad = [...name].find((character) => !/[A-Za-z0-9._-]/.test(character));
  const problem = bad === undefined ? "must start with a letter or digit" : `must not contain ${JSON.stringify(bad)}`;
  throw new VolantError(
    "invalid",
    `${what} name ${JSON.stringify(name)} ${problem}: use letters, digits, ".", "_" and "-"`,
  );
}
