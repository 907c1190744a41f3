import type { RequestSpec } from "#/kube/access-objects.ts";
import type { RequestCondition } from "#/model/access.ts";
import type { FieldMatch, HttpMatch, PathMatch } from "#/model/route.ts";
import { barePrefix } from "#/model/route.ts";
import { literalName, literalPath } from "#/stack/access/request-index.ts";
import { compilePattern } from "#/stack/route/pattern.ts";
import { fieldMatches } from "../filters.ts";
import { hostMatch } from "../routes.ts";

/** Holds for every request, and for nothing that is none. */
export const ANY_REQUEST: RequestCondition = {
  methods: null,
  paths: null,
  hosts: null,
  headers: [],
  query: [],
  claims: [],
};

export function conditionOf(spec: RequestSpec): RequestCondition {
  return {
    methods: spec.methods ?? null,
    paths: pathsOf(spec),
    hosts: spec.hosts?.map(hostMatch) ?? null,
    headers: fieldMatches(spec.headers, true),
    query: fieldMatches(spec.query, false),
    claims: spec.claims ?? [],
  };
}

const PATH_KINDS = { Exact: "exact", PathPrefix: "prefix", RegularExpression: "regex" } as const;

function pathsOf({ paths, grpc }: RequestSpec): readonly PathMatch[] | null {
  if (grpc !== undefined)
    return grpc.map(({ service = "", method = "" }) => ({ kind: "rpc", service, method }));
  return paths?.map(({ type, value }) => ({ kind: PATH_KINDS[type], value })) ?? null;
}

/** The requests that a route's match takes. */
export function conditionOfMatch({ path, headers, query, method }: HttpMatch): RequestCondition {
  return {
    ...ANY_REQUEST,
    methods: method === null ? null : [method],
    paths: path === null ? null : [path],
    headers,
    query,
  };
}

/**
 * Requests for which both hold. Null: there are none. Two expressions cannot always be made one: then `isExact` is false, and the
 * condition is the first one's alone, which holds for more.
 */
export function bothOf(
  a: RequestCondition,
  b: RequestCondition,
): { readonly condition: RequestCondition; readonly isExact: boolean } | null {
  const methods = common(a.methods, b.methods, (one, other) => (one === other ? one : null));
  const hosts = a.hosts ?? b.hosts;
  const headers = union(a.headers, b.headers);
  const query = union(a.query, b.query);
  if (methods?.length === 0) return null;
  const paths = bothPaths(a.paths, b.paths);
  if (paths.paths?.length === 0) return null;
  return {
    condition: { methods, paths: paths.paths, hosts, headers, query, claims: [...a.claims, ...b.claims] },
    isExact: paths.isExact,
  };
}

function common<T>(
  a: readonly T[] | null,
  b: readonly T[] | null,
  join: (one: T, other: T) => T | null,
): readonly T[] | null {
  if (a === null) return b;
  if (b === null) return a;
  return a.flatMap((one) => b.map((other) => join(one, other)).filter((each) => each !== null));
}

/** Fields of both. Where one name would have two values no rule that allows holds, and one that refuses may: of several of the name. */
function union(a: readonly FieldMatch[], b: readonly FieldMatch[]): readonly FieldMatch[] {
  const known = new Set(a.map((each) => JSON.stringify(each)));
  return [...a, ...b.filter((each) => !known.has(JSON.stringify(each)))];
}

function bothPaths(
  a: readonly PathMatch[] | null,
  b: readonly PathMatch[] | null,
): { readonly paths: readonly PathMatch[] | null; readonly isExact: boolean } {
  if (a === null || b === null) return { paths: a ?? b, isExact: true };
  const paths: PathMatch[] = [];
  let isExact = true;
  for (const one of a)
    for (const other of b) {
      const joined = joinPaths(one, other);
      if (joined === "neither") continue;
      if (joined === "unknown") isExact = false;
      paths.push(joined === "unknown" ? one : joined);
    }
  return { paths, isExact };
}

function joinPaths(one: PathMatch, other: PathMatch): PathMatch | "neither" | "unknown" {
  const a = plainOf(one);
  const b = plainOf(other);
  if (a.kind === "exact") return pathHolds(b, a.value) ? one : "neither";
  if (b.kind === "exact") return pathHolds(a, b.value) ? other : "neither";
  if (a.kind === "prefix" && b.kind === "prefix") {
    if (isBelow(a.value, b.value)) return one;
    return isBelow(b.value, a.value) ? other : "neither";
  }
  if (isRoot(a)) return other;
  if (isRoot(b)) return one;
  if (a.kind === "rpc" && b.kind === "rpc") return a.method === b.method ? one : "neither";
  return JSON.stringify(a) === JSON.stringify(b) ? one : "unknown";
}

/** A call as the path that it is, but for one of any service; paths as they are compared. */
function plainOf(path: PathMatch): PathMatch {
  if (path.kind === "regex") return path;
  if (path.kind !== "rpc") return { kind: path.kind, value: literalPath(path.value) };
  const { service, method } = path;
  if (service === "" && method !== "") return path;
  return method === ""
    ? { kind: "prefix", value: `/${literalName(service)}` }
    : { kind: "exact", value: `/${literalName(service)}/${literalName(method)}` };
}

function isRoot(path: PathMatch): boolean {
  return path.kind === "prefix" && barePrefix(path.value) === "";
}

function pathHolds(match: PathMatch, path: string): boolean {
  switch (match.kind) {
    case "exact":
      return match.value === path;
    case "prefix":
      return isBelow(path, match.value);
    case "rpc": {
      const slash = path.indexOf("/", 1);
      return slash !== -1 && path.slice(slash + 1) === literalName(match.method);
    }
    case "regex": {
      const compiled = compilePattern(match.value);
      return compiled.kind === "pattern" && compiled.pattern.matches(path);
    }
  }
}

/** Whole segments (Gateway API). */
function isBelow(path: string, prefix: string): boolean {
  const bare = barePrefix(prefix);
  return path.startsWith(bare) && (path.length === bare.length || path[bare.length] === "/");
}
