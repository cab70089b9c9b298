/** Words for the guest kernel's command line that come from users: what they may say, and what only Volant says. */
import { VolantError } from "@volant/contract";

/** x86's COMMAND_LINE_SIZE is 2,048 with the closing NUL (Linux, arch/x86/include/asm/setup.h); what is longer the kernel cuts without a word. */
export const MAX_CMDLINE_BYTES = 2047;

/** Parameters that Volant sets, or that would take the boot out of its hands. */
const RESERVED = new Set(["console", "init", "initrd", "initrdmem", "ip", "panic", "pci", "rdinit", "tsc_early_khz"]);

/** The kernel takes `-` and `_` in parameter names for the same (Documentation/admin-guide/kernel-parameters.rst). */
function parameterName(word: string): string {
  return (word.split("=", 1)[0] as string).replaceAll("-", "_");
}

function problem(word: string): string | undefined {
  // Quotes can hide a space, or a whole parameter, from whoever looks at words.
  if (word.includes('"')) return "must not contain double quotes";
  if (word === "--") return 'must not contain the word "--", which ends the kernel\'s own parameters';
  const name = parameterName(word);
  if (RESERVED.has(name) || name.startsWith("volant.")) return `must not set "${name}", which Volant sets itself`;
  return undefined;
}

/**
 * Checks a user's `kernel_cmdline`.
 *
 * @returns the words, separated by single spaces
 * @throws VolantError `invalid`, saying which word is wrong and why
 */
export function checkUserCmdline(text: string): string {
  for (const character of text) {
    const code = character.codePointAt(0) as number;
    if (code < 0x20 || code > 0x7e) {
      throw new VolantError("invalid", `kernel_cmdline must be printable ASCII, and has ${JSON.stringify(character)}`);
    }
  }
  const words = text.split(" ").filter((word) => word !== "");
  for (const word of words) {
    const wrong = problem(word);
    if (wrong !== undefined) throw new VolantError("invalid", `kernel_cmdline ${wrong}`);
  }
  return words.join(" ");
}
