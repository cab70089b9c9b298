/** `volar completion <shell>`, and the hidden `volar __complete` that its scripts ask. */
import { Argument, type Command } from "commander";
import { action } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result } from "../../output.ts";
import { SCRIPTS, SHELLS, type Shell } from "./scripts.ts";

/** Adds what `volar completion` takes and does. */
export function registerCompletion(command: Command, io: CliIo): void {
  command
    .description(
      "Prints a script that makes the Tab key complete volar's commands, flags and the names of VMs, plugins and deployments that there are. " +
        "bash: source <(volar completion bash), in ~/.bashrc. zsh: the same with zsh, in ~/.zshrc behind compinit. fish: volar completion fish | source, in " +
        "~/.config/fish/config.fish.",
    )
    .addArgument(new Argument("<shell>", "bash, zsh or fish").choices(SHELLS))
    .action(action(io, async (_, shell: Shell) => result({ shell, script: SCRIPTS[shell] }, ({ script }) => script)));
}

/** Adds what `volar __complete` takes and does. */
export function registerComplete(command: Command, io: CliIo): void {
  command
    .argument("[words...]")
    .action(
      action(io, async (context, words: readonly string[]) =>
        (await import("./run.ts")).printCompletions(context, words),
      ),
    );
}
