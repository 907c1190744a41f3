import { LineCounter, parseAllDocuments, isMap, isSeq, isScalar, isPair, visit } from "yaml";
import type { Document, Node, Pair, Tags } from "yaml";

/** One YAML document of a file (or one item of a `List`), as plain JSON, and where each of its fields stands. */
export interface SourceDocument {
  readonly value: unknown;
  /** Line of the value at `path`; of its nearest existing parent when the path does not exist. */
  readonly lineOf: (path: readonly (string | number)[]) => number;
}

export interface SourceError {
  readonly line: number;
  readonly reason: string;
}

/** Bounds: a file beyond these is refused, so that a folder cannot exhaust the control plane. */
export const FILE_BYTES_MAX: number = 4 * 1024 * 1024;
const DOCUMENTS_MAX = 2000;

/** Reads all YAML documents of a file. Any syntax error refuses the whole file: what follows it cannot be trusted. */
export function readDocuments(text: string): { documents: SourceDocument[]; errors: SourceError[] } {
  if (text.length > FILE_BYTES_MAX)
    return {
      documents: [],
      errors: [{ line: 1, reason: `the file is larger than ${FILE_BYTES_MAX} bytes; split it` }],
    };
  const lines = new LineCounter();
  const parsed = parseAllDocuments(text, {
    lineCounter: lines,
    version: "1.1",
    merge: true,
    customTags: kubernetesTags,
    uniqueKeys: true,
  });
  const all: readonly Document.Parsed[] = Array.isArray(parsed) ? parsed : [];
  const errors: SourceError[] = [];
  for (const doc of all) {
    for (const error of doc.errors)
      errors.push({ line: lines.linePos(error.pos[0]).line || 1, reason: firstLine(error.message) });
  }
  if (all.length > DOCUMENTS_MAX)
    errors.push({ line: 1, reason: `more than ${DOCUMENTS_MAX} documents in one file; split it` });
  if (errors.length > 0) return { documents: [], errors };
  const documents: SourceDocument[] = [];
  for (const doc of all) {
    const line = (node: unknown): number | null => {
      const range = (node as Node | null)?.range;
      return range === null || range === undefined ? null : lines.linePos(range[0]).line;
    };
    // A key is text, whatever it looks like: a ConfigMap may well have keys "on", "n" or "0644".
    visit(doc, {
      Pair: (_, pair) => {
        const { key } = pair;
        if (
          isScalar(key) &&
          (typeof key.value === "boolean" || typeof key.value === "number") &&
          key.source !== undefined
        )
          key.value = key.source;
      },
    });
    let value: unknown;
    try {
      value = withoutNulls(doc.toJS({ maxAliasCount: 100 }));
    } catch (error) {
      errors.push({
        line: line(doc.contents) ?? 1,
        reason: error instanceof Error ? firstLine(error.message) : String(error),
      });
      continue;
    }
    if (value === null || value === undefined) continue;
    for (const one of unwrapList(value)) {
      documents.push({
        value: one.value,
        lineOf: (path) => findLine(doc.contents, [...one.path, ...path], line),
      });
    }
  }
  return errors.length > 0 ? { documents: [], errors } : { documents, errors };
}

/** `kind: List` (and `PodList`, …) stands for its items. */
function unwrapList(value: unknown): { value: unknown; path: readonly (string | number)[] }[] {
  const object = value as { kind?: unknown; items?: unknown };
  if (
    typeof object !== "object" ||
    typeof object.kind !== "string" ||
    !object.kind.endsWith("List") ||
    !Array.isArray(object.items)
  ) {
    return [{ value, path: [] }];
  }
  return object.items.map((item: unknown, i) => ({ value: item, path: ["items", i] }));
}

function findLine(
  root: Node | null,
  path: readonly (string | number)[],
  line: (node: unknown) => number | null,
): number {
  let node: unknown = root;
  let best = line(root) ?? 1;
  for (const step of path) {
    if (isMap(node)) {
      const pair: Pair | undefined = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(step),
      );
      if (pair === undefined) break;
      best = line(pair.key) ?? best;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(step)];
      best = line(node) ?? best;
    } else break;
  }
  return best;
}

/**
 * YAML 1.1 as Kubernetes reads it: `0644` is octal and `yes` is true, but `12:30` is no number in base 60, a date stays
 * text, and there are no sets, ordered maps or binary values.
 */
function kubernetesTags(tags: Tags): Tags {
  const dropped = new Set([
    "tag:yaml.org,2002:timestamp",
    "tag:yaml.org,2002:binary",
    "tag:yaml.org,2002:omap",
    "tag:yaml.org,2002:pairs",
    "tag:yaml.org,2002:set",
  ]);
  return tags.filter(
    (tag) => typeof tag === "string" || !(dropped.has(tag.tag) || ("format" in tag && tag.format === "TIME")),
  );
}

/** In Kubernetes a field that is null is a field that is absent. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== "object" || value === null) return value;
  const out: Record<string, unknown> = {};
  for (const [key, inner] of Object.entries(value)) {
    if (inner !== null && inner !== undefined)
      Object.defineProperty(out, key, {
        value: withoutNulls(inner),
        enumerable: true,
        writable: true,
        configurable: true,
      });
  }
  return out;
}

function firstLine(text: string): string {
  return (text.split("\n")[0] ?? text).replace(/:$/, "").replace(/ at line \d+, column \d+$/, "");
}
