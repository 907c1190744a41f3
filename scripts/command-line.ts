import { parseArgs, type ParseArgsConfig } from "node:util";

export type Options = NonNullable<ParseArgsConfig["options"]>;
type Read<T extends Options> = ReturnType<typeof parseArgs<{ args: string[]; options: T }>>["values"];

/**
 * The options of one of the repository's own programs. `--help` prints how it is used and ends it; a word that is not known, or a number that
 * is none, ends it with one line and the way to the usage.
 */
export function commandLine<const T extends Options>(
  usage: string,
  options: T,
  /** Options that are numbers above 0. */
  numbers: readonly (keyof T & string)[] = [],
): Read<T> {
  const words = process.argv.slice(2);
  if (words.includes("--help") || words.includes("-h")) {
    console.log(usage);
    process.exit();
  }
  const read = readCommandLine(words, options, numbers);
  if ("values" in read) return read.values;
  console.error(read.wrong);
  process.exit(2);
}

export function readCommandLine<const T extends Options>(
  words: readonly string[],
  options: T,
  numbers: readonly (keyof T & string)[],
): { readonly values: Read<T> } | { readonly wrong: string } {
  let values: Read<T>;
  try {
    values = parseArgs({ args: [...words], options }).values;
  } catch (error) {
    return { wrong: `${error instanceof Error ? error.message : String(error)}; --help shows all options` };
  }
  for (const name of numbers) {
    const text: unknown = values[name as keyof Read<T>];
    if (typeof text === "string" && !(Number(text) > 0))
      return { wrong: `--${name} ${text}: this is no number above 0; --help shows all options` };
  }
  return { values };
}
