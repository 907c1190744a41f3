import type { Command } from "commander";
import { CommandError } from "./exit.ts";

/** A completion script for a shell, made from the commands as they are. */
export function completion(program: Command, shell: string): string {
  const commands = program.commands.map((command) => command.name());
  const options = program.commands.map((command) => ({
    name: command.name(),
    flags: command.options.flatMap((option) =>
      [option.long, option.short].filter((flag) => flag !== undefined && flag !== null),
    ),
  }));
  if (shell === "bash") {
    return [
      "_pillion() {",
      '  local word="${COMP_WORDS[COMP_CWORD]}"',
      `  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "${commands.join(" ")}" -- "$word")); return; fi`,
      '  case "${COMP_WORDS[1]}" in',
      ...options.map(
        ({ name, flags }) =>
          `    ${name}) COMPREPLY=($(compgen -W "${flags.join(" ")}" -- "$word") $(compgen -f -- "$word")) ;;`,
      ),
      "  esac",
      "}",
      "complete -F _pillion pillion",
      "",
    ].join("\n");
  }
  if (shell === "zsh") {
    return [
      "#compdef pillion",
      "_pillion() {",
      `  if (( CURRENT == 2 )); then compadd ${commands.join(" ")}; return; fi`,
      '  case "$words[2]" in',
      ...options.map(({ name, flags }) => `    ${name}) compadd -- ${flags.join(" ")}; _files ;;`),
      "  esac",
      "}",
      '_pillion "$@"',
      "",
    ].join("\n");
  }
  throw new CommandError(`completion for "${shell}" is not made; there is bash and zsh`, 2);
}
