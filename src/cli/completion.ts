import type { Command, Option } from "commander";
import { CommandError } from "./exit.ts";

/** A completion script for a shell, made from the commands as they are. */
export function completion(program: Command, shell: string): string {
  if (shell === "bash") return bash(program);
  if (shell === "zsh") return zsh(program);
  throw new CommandError(`completion for "${shell}" is not made; there is bash and zsh`, 2);
}

/** One line of a command: what can follow it, and what can follow an option of it. */
interface Case {
  /** "up", "rollout restart" */
  readonly path: string;
  readonly words: readonly string[];
  /** `-o|--output` → its choices; null where files or folders are wanted. */
  readonly values: readonly { readonly flags: string; readonly choices: readonly string[] | null }[];
}

function casesOf(command: Command, path: readonly string[] = []): Case[] {
  const options = command.options.filter((option) => !option.hidden);
  const own: Case = {
    path: path.join(" "),
    words: [
      ...command.commands.map((sub) => sub.name()),
      ...options.flatMap(flagsOf),
      ...(path.length === 0 ? [] : ["--help"]),
      ...(path[0] === "completion" ? ["bash", "zsh"] : []),
    ],
    values: options
      .filter((option) => option.required)
      .map((option) => ({
        flags: flagsOf(option).join("|"),
        choices: option.flags.endsWith("<folder>") ? null : (option.argChoices ?? []),
      })),
  };
  return [own, ...command.commands.flatMap((sub) => casesOf(sub, [...path, sub.name()]))];
}

function flagsOf(option: Option): string[] {
  return [option.long, option.short].filter((flag) => flag !== undefined && flag !== null);
}

function bash(program: Command): string {
  const cases = casesOf(program);
  const groups = program.commands.filter((command) => command.commands.length > 0).map((each) => each.name());
  return [
    "_pillion() {",
    '  local word="${COMP_WORDS[COMP_CWORD]}" last="${COMP_WORDS[COMP_CWORD-1]}" path=""',
    '  if [ "$COMP_CWORD" -gt 1 ]; then path="${COMP_WORDS[1]}"; fi',
    ...groups.map(
      (name) =>
        `  if [ "$path" = ${name} ] && [ "$COMP_CWORD" -gt 2 ]; then path="${name} \${COMP_WORDS[2]}"; fi`,
    ),
    "  COMPREPLY=()",
    '  case "$path" in',
    ...cases.flatMap(({ path, words, values }) => [
      `    "${path}")`,
      '      case "$last" in',
      ...values.map(
        ({ flags, choices }) =>
          `        ${flags}) COMPREPLY=($(compgen ${choices === null ? "-d" : `-W "${choices.join(" ")}"`} -- "$word")); return ;;`,
      ),
      "      esac",
      `      COMPREPLY=($(compgen -W "${words.join(" ")}" -- "$word")) ;;`,
    ]),
    "  esac",
    "}",
    "complete -F _pillion pillion",
  ].join("\n");
}

function zsh(program: Command): string {
  const cases = casesOf(program);
  const groups = program.commands.filter((command) => command.commands.length > 0).map((each) => each.name());
  return [
    "#compdef pillion",
    "_pillion() {",
    '  local last="$words[CURRENT-1]" path_=""',
    '  if (( CURRENT > 2 )); then path_="$words[2]"; fi',
    ...groups.map(
      (name) => `  if [[ "$path_" == ${name} ]] && (( CURRENT > 3 )); then path_="${name} $words[3]"; fi`,
    ),
    '  case "$path_" in',
    ...cases.flatMap(({ path, words, values }) => [
      `    "${path}")`,
      '      case "$last" in',
      ...values.map(
        ({ flags, choices }) =>
          `        ${flags}) ${choices === null ? "_files -/" : `compadd -- ${choices.join(" ")}`}; return ;;`,
      ),
      "      esac",
      `      compadd -- ${words.join(" ")} ;;`,
    ]),
    "  esac",
    "}",
    // Works from a file on fpath and by `source <(pillion completion zsh)` alike.
    'if [[ "$funcstack[1]" == _pillion ]]; then _pillion "$@"; else compdef _pillion pillion; fi',
  ].join("\n");
}
