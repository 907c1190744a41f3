/**
 * What a sidecar understands beyond Linkerd's contract. It says so itself, in the workload that it names with each question:
 * `{"ns":"shop","pod":"web-0","pillion":["policy/1"]}`. The control plane gives every pod's proxy the same workload to name,
 * whichever proxy rides beside it, and another one names it as it was given. So what is not said is not understood.
 */
export interface Capabilities {
  /** The fields from 10000 up, as this version has them. */
  readonly isExtended: boolean;
}

export const STANDARD_CAPABILITIES: Capabilities = { isExtended: false };

/** Raised with a field that restricts, which the version before would pass over. */
const POLICY = "policy/1";

/** The workload, or the context of discovery, with what we understand. One that is no JSON object stays as it is. */
export function withCapabilities(workload: string): string {
  const named = parseObject(workload);
  return named === null ? workload : JSON.stringify({ ...named, pillion: [POLICY] });
}

export function capabilitiesIn(workload: string): Capabilities {
  const stated: unknown = parseObject(workload)?.["pillion"];
  return { isExtended: Array.isArray(stated) && stated.includes(POLICY) };
}

function parseObject(text: string): Readonly<Record<string, unknown>> | null {
  if (!text.startsWith("{")) return null;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return null;
  }
}
