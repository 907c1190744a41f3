/** What running without root does not give, as one block. */
export function notKeptLines(notKept: readonly string[]): string[] {
  if (notKept.length === 0) return [];
  return ["started without root, so not given here:", ...notKept.map((line) => `  - ${line}`)];
}
