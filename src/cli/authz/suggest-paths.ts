import { ANY_PATH, ID_KINDS } from "#/model/flow.ts";
import type { Flow } from "#/model/flow.ts";
import { comparedPath, normalPath } from "#/stack/access/path.ts";
import { utf8OfLatin1 } from "#/stack/route/text.ts";

/** As an AuthorizationPolicy writes it (docs/reference/authorization.md). */
export interface SuggestedRequest {
  readonly methods?: readonly string[];
  readonly paths?: readonly { readonly type: "Exact" | "RegularExpression"; readonly value: string }[];
  readonly grpc?: readonly { readonly service: string; readonly method: string }[];
}

/**
 * So many words beside each other are names of things, not parts of an interface; of words that differ in a number at their end
 * (`customer12`) a few are enough.
 */
const WORDS_MAX = 20;
const NUMBERED_MAX = 2;
/** The schema's bound on entries of one list. */
const ENTRIES_MAX = 64;
const METHODS_MAX = 32;
const PATH_CHARS_MAX = 1024;

/** Has several readings, and is refused wherever a rule looks at paths (docs/reference/authorization.md, "Paths"). */
export function isAmbiguous({ protocol, path }: Flow): boolean {
  return protocol !== "opaque" && path !== ANY_PATH && normalPath(path) === null;
}

/** The least that lets these requests of one client through. Null: they cannot be told by what is known of them. */
export function requestsOf(flows: readonly Flow[]): readonly SuggestedRequest[] | null {
  if (flows.some(({ protocol, path }) => protocol === "opaque" || path === ANY_PATH)) return null;
  const calls = flows.flatMap(({ protocol, path }) => (protocol === "grpc" ? [callOf(path)] : []));
  if (calls.includes(null)) return null;
  const patterns = patternsOf(flows.filter(({ protocol }) => protocol === "http"));
  if (patterns.some(({ path }) => (path?.value.length ?? 0) > PATH_CHARS_MAX)) return null;
  const byMethods = Map.groupBy(patterns, ({ methods }) => methods.join(" "));
  const http = [...byMethods.values()].flatMap((same): SuggestedRequest[] => {
    const { methods } = same[0]!;
    const said = methods.length > METHODS_MAX ? {} : { methods };
    // "*" (of OPTIONS) and the empty target of CONNECT are no paths.
    const paths = same.flatMap(({ path }) => (path === null ? [] : [path]));
    return [
      ...(paths.length < same.length ? [said] : []),
      ...pieces(paths).map((piece) => ({ ...said, paths: piece })),
    ];
  });
  const grpc = [...new Set(calls as string[])].toSorted().map((call) => {
    const [service = "", method = ""] = call.split("/");
    return { service, method };
  });
  const all = [...http, ...pieces(grpc).map((piece) => ({ grpc: piece }))];
  return all.length > ENTRIES_MAX ? null : all;
}

function pieces<T>(list: readonly T[]): T[][] {
  const out: T[][] = [];
  for (let i = 0; i < list.length; i += ENTRIES_MAX) out.push(list.slice(i, i + ENTRIES_MAX));
  return out;
}

/** `pkg.Service/Method`; null where it is none. */
function callOf(path: string): string | null {
  return /^\/[^/]+\/[^/]+$/.test(path) ? path.slice(1) : null;
}

interface Pattern {
  /** Null: what has no path. */
  readonly path: NonNullable<SuggestedRequest["paths"]>[number] | null;
  readonly methods: readonly string[];
}

function patternsOf(flows: readonly Flow[]): Pattern[] {
  const known = flows.filter((flow) => !isAmbiguous(flow));
  const folded = foldNames(known.map(({ path }) => normalPath(path)!));
  const byPath = new Map<string, Set<string>>();
  known.forEach(({ method }, i) => {
    const path = folded[i]!;
    const methods = byPath.get(path);
    if (methods === undefined) byPath.set(path, new Set([method]));
    else methods.add(method);
  });
  return [...byPath]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, methods]) => ({ path: pathMatch(path), methods: [...methods].toSorted() }));
}

function pathMatch(path: string): Pattern["path"] {
  if (!path.startsWith("/")) return null;
  const segments = path.split("/");
  if (!segments.some((segment) => ID_TEXTS.has(segment))) return { type: "Exact", value: path };
  const pattern = segments.map((segment) => (ID_TEXTS.has(segment) ? "[^/]+" : escaped(segment))).join("/");
  return { type: "RegularExpression", value: pattern };
}

/** Any id. */
const NAME = "{name}";
const ID_TEXTS: ReadonlySet<string> = new Set([NAME, ...Object.values(ID_KINDS).map(({ text }) => text)]);

/** A segment for a regular expression, which is held against paths with their escapes resolved. */
function escaped(segment: string): string {
  const text = utf8OfLatin1(comparedPath(segment));
  // No UTF-8: what it is cannot be written.
  if (text.includes("\ufffd")) return "[^/]+";
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&").replaceAll(" ", "\\x20");
}

/** Segments that are names of things become `{name}`, from the root down, so that what is below them is looked at together. */
export function foldNames(paths: readonly string[]): string[] {
  const split = paths.map((path) => path.split("/"));
  const depthMax = Math.max(0, ...split.map(({ length }) => length));
  for (let depth = 1; depth < depthMax; depth++) {
    const longer = split.filter(({ length }) => length > depth);
    for (const siblings of Map.groupBy(longer, (path) => path.slice(0, depth).join("/")).values()) {
      const words = new Set(siblings.map((path) => path[depth]!).filter((word) => word !== ""));
      const names = namesAmong(words);
      if (names.size > 0) for (const path of siblings) if (names.has(path[depth]!)) path[depth] = NAME;
    }
  }
  return split.map((path) => path.join("/"));
}

function namesAmong(words: ReadonlySet<string>): ReadonlySet<string> {
  // Ids of several kinds in one place are one kind of name.
  const ids = [...words].filter((word) => ID_TEXTS.has(word));
  const plain = [...words].filter((word) => !ID_TEXTS.has(word));
  if (plain.length > WORDS_MAX) return words;
  const numbered = Map.groupBy(plain, (word) => /^(.*[^0-9])[0-9]+$/.exec(word)?.[1] ?? "");
  numbered.delete("");
  // Versions of an interface.
  numbered.delete("v");
  const names = [...numbered.values()].filter(({ length }) => length > NUMBERED_MAX).flat();
  return new Set(names.length > 0 || ids.length > 1 ? [...names, ...ids] : []);
}
