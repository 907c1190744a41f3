/** One sample of a Prometheus text page. */
export interface Sample {
  readonly name: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

/** Samples of a page (Prometheus text format 0.0.4). Lines that are no samples are passed over. */
export function parseSamples(page: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of page.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const brace = line.indexOf("{");
    const close = line.lastIndexOf("}");
    const labels = new Map<string, string>();
    if (brace !== -1 && close > brace) {
      for (const match of line
        .slice(brace + 1, close)
        .matchAll(/([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"/g)) {
        labels.set(
          match[1] as string,
          (match[2] as string).replace(/\\(.)/g, (_, char: string) => (char === "n" ? "\n" : char)),
        );
      }
    }
    const name = brace === -1 ? line.slice(0, line.indexOf(" ")) : line.slice(0, brace);
    const value = Number(
      line
        .slice(brace === -1 ? name.length : close + 1)
        .trim()
        .split(" ")[0],
    );
    if (name !== "") samples.push({ name, labels, value });
  }
  return samples;
}
