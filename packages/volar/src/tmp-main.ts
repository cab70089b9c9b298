import { Command } from "commander";
import { registerSetup } from "./commands/setup/setup.ts";
import { registerKernel } from "./commands/kernel/install.ts";
import { exitCode, failureText } from "./failure.ts";
const program = new Command("volar").option("--output <format>");
program.exitOverride();
registerSetup(program);
registerKernel(program);
try {
  await program.parseAsync();
} catch (error) {
  const code = (error as { code?: string }).code;
  if (String(code).startsWith("commander.")) process.exitCode = code === "commander.helpDisplayed" ? 0 : 2;
  else {
    process.stderr.write(failureText(error));
    process.exitCode = exitCode(error);
  }
}
