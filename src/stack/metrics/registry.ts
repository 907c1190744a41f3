import type { Labels } from "#/model/identity.ts";

export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  /** Upper bounds of a histogram's buckets, rising; +Inf is added. */
  readonly bounds?: readonly number[];
}

/** A number that is counted up, or set. Hold it for as long as it is used, then `release` it. */
export class Value {
  value = 0;
  readonly labels: string;
  /** How many hold it. A held series never expires. */
  holders = 0;
  seenValue = 0;
  changedAtMs = 0;
  constructor(labels: string) {
    this.labels = labels;
  }
  add(amount: number): void {
    this.value += amount;
  }
  set(value: number): void {
    this.value = value;
  }
  release(): void {
    this.holders--;
  }
}

export class Histogram extends Value {
  readonly bounds: readonly number[];
  /** One more than `bounds`: the last is everything above. `value` is the sum, not cumulative. */
  readonly counts: Float64Array;
  count = 0;
  constructor(labels: string, bounds: readonly number[]) {
    super(labels);
    this.bounds = bounds;
    this.counts = new Float64Array(bounds.length + 1);
  }
  observe(amount: number): void {
    const bounds = this.bounds;
    let at = 0;
    while (at < bounds.length && amount > (bounds[at] as number)) at++;
    this.counts[at] = (this.counts[at] as number) + 1;
    this.value += amount;
    this.count++;
  }
}

/** Labels as series are known by them: for those who ask for several series of the same, or for one again and again. */
export class LabelText {
  readonly text: string;

  constructor(labels: Labels) {
    this.text = labelText(labels);
  }
}

function makeValue(text: string): Value {
  return new Value(text);
}

/** Series of one family; what is asked for beyond is counted together under `overflow="true"`. */
const SERIES_MAX = 2000;
const OVERFLOW: Labels = { overflow: "true" };

/**
 * All of a sidecar's metrics, in the order in which their families were first used. Bounds: `SERIES_MAX` label sets a family; a
 * series that nobody holds and that has not changed for the idle time goes.
 */
export class Registry {
  readonly #families = new Map<string, { readonly family: Family; readonly series: Map<string, Value> }>();
  readonly #collectors: (() => void)[] = [];

  counter(family: Family, labels: Labels | LabelText): Value {
    return this.#series(family, labels, makeValue);
  }

  gauge(family: Family, labels: Labels | LabelText): Value {
    return this.#series(family, labels, makeValue);
  }

  histogram(family: Family, labels: Labels): Histogram {
    return this.#series(family, labels, (text) => new Histogram(text, family.bounds ?? [])) as Histogram;
  }

  /** Counts once, without keeping the series. */
  count(family: Family, labels: Labels | LabelText): void {
    const series = this.counter(family, labels);
    series.add(1);
    series.release();
  }

  /** `collect` runs before each reading, to bring values up to date that are cheaper to sum up late. */
  beforeReading(collect: () => void): void {
    this.#collectors.push(collect);
  }

  /** The Prometheus text format, version 0.0.4. */
  render(): string {
    for (const collect of this.#collectors) collect();
    const lines: string[] = [];
    for (const { family, series } of this.#families.values()) {
      if (series.size === 0) continue;
      lines.push(`# HELP ${family.name} ${family.help}`, `# TYPE ${family.name} ${family.type}`);
      for (const one of series.values()) {
        if (one instanceof Histogram) renderHistogram(family.name, one, lines);
        else lines.push(`${family.name}${braces(one.labels)} ${one.value}`);
      }
    }
    lines.push("");
    return lines.join("\n");
  }

  /** Drops what nobody holds and what has not changed for `idleMs`. Call it every minute or so. */
  expire(nowMs: number, idleMs: number): void {
    for (const { series } of this.#families.values()) {
      for (const [key, one] of series) {
        const value = one instanceof Histogram ? one.count : one.value;
        if (one.holders > 0 || value !== one.seenValue || one.changedAtMs === 0) {
          one.seenValue = value;
          one.changedAtMs = nowMs;
        } else if (nowMs - one.changedAtMs >= idleMs) series.delete(key);
      }
    }
  }

  #series(family: Family, labels: Labels | LabelText, make: (text: string) => Value): Value {
    let known = this.#families.get(family.name);
    if (known === undefined) this.#families.set(family.name, (known = { family, series: new Map() }));
    let text = labels instanceof LabelText ? labels.text : labelText(labels);
    let series = known.series.get(text);
    if (series === undefined) {
      if (known.series.size >= SERIES_MAX) text = labelText(OVERFLOW);
      series = known.series.get(text);
      if (series === undefined) known.series.set(text, (series = make(text)));
    }
    series.holders++;
    return series;
  }
}

function renderHistogram(name: string, histogram: Histogram, lines: string[]): void {
  const prefix = histogram.labels === "" ? "" : `${histogram.labels},`;
  let sum = 0;
  for (let i = 0; i <= histogram.bounds.length; i++) {
    sum += histogram.counts[i] as number;
    const bound = i === histogram.bounds.length ? "+Inf" : String(histogram.bounds[i]);
    lines.push(`${name}_bucket{${prefix}le="${bound}"} ${sum}`);
  }
  lines.push(
    `${name}_sum${braces(histogram.labels)} ${histogram.value}`,
    `${name}_count${braces(histogram.labels)} ${sum}`,
  );
}

function braces(labels: string): string {
  return labels === "" ? "" : `{${labels}}`;
}

function labelText(labels: Labels): string {
  let text = "";
  for (const name in labels) {
    const value = labels[name] as string;
    text += `${text === "" ? "" : ","}${name}="${/["\\\n]/.test(value) ? escapeValue(value) : value}"`;
  }
  return text;
}

function escapeValue(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
