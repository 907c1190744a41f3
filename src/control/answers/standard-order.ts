import type { FieldMatch, HostMatch, HttpMatch, HttpRoute, HttpRule, PathMatch } from "#/model/route.ts";
import { barePrefix } from "#/model/route.ts";
import { literalPrefix } from "./common-regex.ts";
import { wirePlainPath } from "./encode-match.ts";
import type { Lose } from "./standard-refusal.ts";
import { refusingRule } from "./standard-refusal.ts";

/**
 * Which of two rules takes a request that both match, our sidecars and linkerd2-proxy do not always read alike. Ours (and
 * Gateway API) goes by the kind of path first: exact > longest prefix > regex > any, and a gRPC call has its GRPCRoutes first.
 * The other goes by how many characters were matched: an exact path, a regex and a prefix that is the whole path are equal, and
 * a regex is longer than any prefix (facts §13). Where the two could differ, a rule is put before them that refuses what both
 * match. Patterns are only looked at from outside, so that more may be refused than need be.
 */
export function withOrderKept(routes: readonly HttpRoute[], lose: Lose): readonly HttpRoute[] {
  const plain = routes.map(withPlainPaths);
  const all = plain.flatMap((route, at) => candidatesOf(route, routes[at]!, at));
  const refused = new Map<number, HttpMatch[]>();
  for (const [i, x] of all.entries())
    for (const [j, y] of all.entries()) {
      if (i === j || !oursPrefers(x, y, i, j) || !theirsMayPrefer(y, x, j, i)) continue;
      const both = intersection(x, y);
      if (both.length > 0) refused.set(y.at, [...(refused.get(y.at) ?? []), ...both]);
    }
  return plain.map((route, at) => {
    const matches = unique(refused.get(at) ?? []);
    if (matches.length === 0) return route;
    lose(
      route.source,
      "refuse what two rules match whose order they read otherwise, such as a prefix and a regular expression",
    );
    const refuse = (all: readonly HttpMatch[]): HttpRule =>
      refusingRule(all, route.source, "an order of rules");
    // So many that it is no longer worth telling which: what the route takes is refused.
    if (matches.length > REFUSALS_MAX)
      return { ...route, rules: route.rules.map((rule) => refuse(rule.matches)) };
    return { ...route, rules: [refuse(matches), ...route.rules] };
  });
}

/** Of one route. */
const REFUSALS_MAX = 500;

/** gRPC methods as the paths that they are. */
function withPlainPaths(route: HttpRoute): HttpRoute {
  const plain = (match: HttpMatch): HttpMatch => ({
    ...match,
    path: match.path === null ? null : wirePlainPath(match.path),
  });
  return { ...route, rules: route.rules.map((rule) => ({ ...rule, matches: rule.matches.map(plain) })) };
}

interface Candidate {
  readonly route: HttpRoute;
  /** The route's place, and the rule's within it. */
  readonly at: number;
  readonly ruleAt: number;
  readonly match: HttpMatch;
  readonly isCall: boolean;
  /** Ours: kind of path, the longest prefix by its length. */
  readonly kindRank: number;
  readonly path: PathMatch & { readonly value: string };
}

function candidatesOf(route: HttpRoute, original: HttpRoute, at: number): Candidate[] {
  return route.rules.flatMap((rule, ruleAt) => {
    const matches = rule.matches.length === 0 ? [NO_MATCH] : rule.matches;
    const originals = original.rules[ruleAt]!.matches;
    return matches.map((match, matchAt): Candidate => {
      const path = (match.path ?? ROOT) as Candidate["path"];
      const isMethod = originals[matchAt]?.path?.kind === "rpc" && path.kind === "regex";
      const kindRank =
        path.kind === "exact" ? 4 : isMethod ? 2 : path.kind === "regex" ? 1 : isRoot(path) ? 0 : 3;
      return { route, at, ruleAt, match, isCall: route.source.kind === "GRPCRoute", kindRank, path };
    });
  });
}

const ROOT = { kind: "prefix", value: "/" } as const;
const NO_MATCH: HttpMatch = { path: null, headers: [], query: [], method: null };

function isRoot({ kind, value }: Candidate["path"]): boolean {
  return kind === "prefix" && barePrefix(value) === "";
}

/** `i`, `j`: the places of both in the list. Of candidates at one host, for a request that both match. */
function oursPrefers(x: Candidate, y: Candidate, i: number, j: number): boolean {
  if (x.at === y.at && x.ruleAt === y.ruleAt) return false;
  if (x.isCall !== y.isCall) return x.isCall;
  if (!mayMeet(x.route.hosts, y.route.hosts)) return false;
  if (x.kindRank !== y.kindRank) return x.kindRank > y.kindRank;
  const longer = x.kindRank === 3 ? barePrefix(x.path.value).length - barePrefix(y.path.value).length : 0;
  return (longer || restOrder(x.match, y.match) || j - i) > 0;
}

/** Whether two routes can be equal in the host that they take; otherwise the host decides first, and alike. */
function mayMeet(a: readonly HostMatch[], b: readonly HostMatch[]): boolean {
  if (a.length === 0 || b.length === 0) return a.length === b.length;
  return a.some((one) => b.some((other) => one.kind === other.kind && one.host === other.host));
}

function theirsMayPrefer(y: Candidate, x: Candidate, j: number, i: number): boolean {
  if (isDecidedByHost(x, y)) return true;
  const longer = pathOrder(x.path, y.path);
  if (longer === "theirs") return true;
  if (longer === "ours") return false;
  return (restOrder(x.match, y.match) || j - i) < 0;
}

/** Kinds compete across hosts too, and theirs looks at the host first. */
function isDecidedByHost(x: Candidate, y: Candidate): boolean {
  return x.isCall !== y.isCall && (x.route.hosts.length > 0 || y.route.hosts.length > 0);
}

/** By matched characters: "ours" where `x` is always the longer, "theirs" where `y` may be, "tie" where they may be equal. */
function pathOrder(x: Candidate["path"], y: Candidate["path"]): "ours" | "theirs" | "tie" {
  const exact = x.kind === "exact" ? x.value : y.kind === "exact" ? y.value : null;
  const lengthOf = ({ kind, value }: Candidate["path"]): number | null => {
    if (kind === "prefix") return Math.max(1, barePrefix(value).length);
    return kind === "exact" ? value.length : (exact?.length ?? null);
  };
  const a = lengthOf(x);
  const b = lengthOf(y);
  if (a !== null && b !== null) return a === b ? "tie" : a > b ? "ours" : "theirs";
  // The one that is not known is the whole path, which is at least as long as a prefix of it.
  if (a === null && b === null) return "tie";
  return a === null ? "tie" : "theirs";
}

/** With a method > more headers > more query parameters: alike in both. Above 0: `a` goes first. */
function restOrder(a: HttpMatch, b: HttpMatch): number {
  return (
    Number(a.method !== null) - Number(b.method !== null) ||
    a.headers.length - b.headers.length ||
    a.query.length - b.query.length
  );
}

/** Matches that hold at least where both do and `y` would be preferred, and are never preferred less than `y`. */
function intersection(x: Candidate, y: Candidate): HttpMatch[] {
  const { match: a } = x;
  const { match: b } = y;
  if (a.method !== null && b.method !== null && a.method !== b.method) return [];
  const headers = union(b.headers, a.headers);
  const query = union(b.query, a.query);
  if (headers === null || query === null) return [];
  const paths = pathsOf(x.path, y.path, isDecidedByHost(x, y));
  return paths.map((path) => ({ path, headers, query, method: b.method ?? a.method }));
}

function pathsOf(x: Candidate["path"], y: Candidate["path"], isWhateverLong: boolean): PathMatch[] {
  const exact = x.kind === "exact" ? x : y.kind === "exact" ? y : null;
  if (exact !== null) {
    const other = exact === x ? y : x;
    return mayHold(other, exact.value) ? [exact] : [];
  }
  if (x.kind === "prefix" && y.kind === "prefix") {
    const [short, long] = x.value.length <= y.value.length ? [x, y] : [y, x];
    return mayHold(short, barePrefix(long.value)) ? [long] : [];
  }
  if (y.kind === "regex") return x.kind === "regex" || mayMeetPrefix(y.value, x.value) ? [y] : [];
  if (!mayMeetPrefix(x.value, y.value)) return [];
  if (isWhateverLong) return [x];
  // A regex has as many characters as the prefix only where the prefix is the whole path.
  if (isRoot(y)) return ["/", "*"].map((value) => ({ kind: "exact", value }));
  return [{ kind: "exact", value: barePrefix(y.value) }];
}

function mayHold({ kind, value }: Candidate["path"], path: string): boolean {
  if (kind === "exact") return path === value;
  if (kind === "regex") return path.startsWith(literalPrefix(value));
  const prefix = barePrefix(value);
  return path.startsWith(prefix) && (path.length === prefix.length || path[prefix.length] === "/");
}

function mayMeetPrefix(regex: string, prefix: string): boolean {
  const literal = literalPrefix(regex);
  return literal.startsWith(barePrefix(prefix)) || barePrefix(prefix).startsWith(literal);
}

/** All of both; null where one field would have to have two values. */
function union(a: readonly FieldMatch[], b: readonly FieldMatch[]): FieldMatch[] | null {
  const all = [...a];
  for (const one of b) {
    const isOther = (other: FieldMatch): boolean => other.name === one.name && other.value.kind === "exact";
    if (
      one.value.kind === "exact" &&
      all.some((other) => isOther(other) && other.value.value !== one.value.value)
    )
      return null;
    if (!all.some((other) => JSON.stringify(other) === JSON.stringify(one))) all.push(one);
  }
  return all;
}

function unique(matches: readonly HttpMatch[]): HttpMatch[] {
  return [...new Map(matches.map((match) => [JSON.stringify(match), match])).values()];
}
