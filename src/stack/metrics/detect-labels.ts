import type { DecidedBy, Detected, Dialled } from "../detection.ts";
import { LabelText } from "./registry.ts";

/** Label values of facts §17.2. */
const RESULTS: Readonly<Record<string, string>> = { http1: "http/1", http2: "http/2" };
/** A dozen at most: all that can be found, by all who can decide it. */
const texts = new Map<string, LabelText>();

/** What detection found, as `*_tcp_detect_http_results_total` counts it. Every connection asks. */
export function detectLabels(kind: Detected<Dialled>["kind"], decidedBy: DecidedBy): LabelText {
  const key = `${kind} ${decidedBy}`;
  let text = texts.get(key);
  if (text === undefined) {
    text = new LabelText({ result: RESULTS[kind] ?? "not_http", decided_by: decidedBy });
    texts.set(key, text);
  }
  return text;
}
