import type { RequestSpec } from "#/kube/access-objects.ts";
import type { RequestCondition } from "#/model/access.ts";
import type { FieldMatch, HttpMatch, PathMatch } from "#/model/route.ts";
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
  if (methods?.length === 0 || headers === null || query === null) return null;
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

/** Fields of both; null where one name would have two values. */
function union(a: readonly FieldMatch[], b: readonly FieldMatch[]): FieldMatch[] | null {
  const all = [...a];
  for (const one of b) {
    const same = all.find((other) => other.name === one.name);
    if (same === undefined || same.value.kind !== one.value.kind) all.push(one);
    else if (same.value.value !== one.value.value) {
      if (one.value.kind === "exact") return null;
      all.push(one);
    }
  }
  return all;
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

function joinPaths(a: PathMatch, b: PathMatch): PathMatch | "neither" | "unknown" {
  const exactA = exactOf(a);
  const exactB = exactOf(b);
  if (exactA !== null) return pathHolds(b, exactA) ? a : "neither";
  if (exactB !== null) return pathHolds(a, exactB) ? b : "neither";
  if (a.kind === "rpc" && b.kind === "rpc") {
    const service = oneOf(a.service, b.service);
    const method = oneOf(a.method, b.method);
    return service === null || method === null ? "neither" : { kind: "rpc", service, method };
  }
  if (a.kind === "prefix" && b.kind === "prefix") {
    if (isBelow(a.value, b.value)) return a;
    return isBelow(b.value, a.value) ? b : "neither";
  }
  if (isRoot(a)) return b;
  if (isRoot(b)) return a;
  return JSON.stringify(a) === JSON.stringify(b) ? a : "unknown";
}

function isRoot(path: PathMatch): boolean {
  return path.kind === "prefix" && trimmed(path.value) === "";
}

/** "" is any; null: they differ. */
function oneOf(a: string, b: string): string | null {
  return a === "" || a === b ? b : b === "" ? a : null;
}

/** The one path that a match holds for; null where there are several. */
function exactOf(path: PathMatch): string | null {
  if (path.kind === "exact") return path.value;
  return path.kind === "rpc" && path.service !== "" && path.method !== ""
    ? `/${path.service}/${path.method}`
    : null;
}

function pathHolds(match: PathMatch, path: string): boolean {
  switch (match.kind) {
    case "exact":
      return match.value === path;
    case "prefix":
      return isBelow(path, match.value);
    case "rpc": {
      const [, service = "", method = "", ...more] = path.split("/");
      return (
        more.length === 0 &&
        service !== "" &&
        method !== "" &&
        oneOf(match.service, service) !== null &&
        oneOf(match.method, method) !== null
      );
    }
    case "regex": {
      const compiled = compilePattern(match.value);
      return compiled.kind !== "problem" && compiled.pattern.matches(path);
    }
  }
}

/** Whole segments (Gateway API). */
function isBelow(path: string, prefix: string): boolean {
  const bare = trimmed(prefix);
  return path.startsWith(bare) && (path.length === bare.length || path[bare.length] === "/");
}

function trimmed(prefix: string): string {
  return prefix.replace(/\/+$/, "");
}
