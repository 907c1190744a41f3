/** Kubernetes quantities ("250m", "1.5Gi", "2e3"): null when the text is none. */
export function parseQuantity(text: string | number): number | null {
  if (typeof text === "number") return Number.isFinite(text) ? text : null;
  const match = /^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)$/.exec(text.trim());
  if (match === null) return null;
  const value = Number(match[1]! + (match[2] ?? ""));
  const suffix = match[3];
  return suffix === undefined ? value : value * SUFFIXES[suffix]!;
}

/** CPU in thousandths of a core, rounded up as Kubernetes does. */
export function cpuMillis(text: string | number): number | null {
  const value = parseQuantity(text);
  return value === null || value < 0 ? null : Math.ceil(Number((value * 1000).toFixed(6)));
}

/** Bytes, rounded up. */
export function byteCount(text: string | number): number | null {
  const value = parseQuantity(text);
  return value === null || value < 0 ? null : Math.ceil(value);
}

const SUFFIXES: Readonly<Record<string, number>> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};
